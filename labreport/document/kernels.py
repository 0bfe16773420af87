"""Kernels that are there at once: forked from a process that has already imported what notebooks import.

In a report that trains nothing, the imports of one kernel a notebook would take a third of the time.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar, TextIO

import psutil
from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner

LAUNCHER = "ipykernel_launcher"
INLINE = "module://matplotlib_inline.backend_inline"
IMPORTED = (
    "ipykernel.zmqshell",
    "labreport.lab.chapters",
    "torch._dynamo",
    "labreport._torchvision",
    "matplotlib.backends.backend_svg",
)
SERVE = f"import sys; sys.path.pop(0); from {__name__} import serve; serve(int(sys.argv[1]))"


@contextmanager
def forking() -> Iterator[type[AsyncKernelManager]]:
    """The class of kernel managers to be used within: on Linux they fork their kernels, elsewhere they start them.

    Elsewhere, what a process has imported need not survive a fork. It is imported in the environment of this moment.
    """
    if sys.platform != "linux":
        yield AsyncKernelManager
        return
    ours, theirs = socket.socketpair()
    with ours, theirs, ours.makefile() as answers:
        fd = theirs.fileno()
        command = [sys.executable, "-c", SERVE, str(fd)]
        environment = {"MPLBACKEND": INLINE, **os.environ}  # as kernels have it, and matplotlib reads it when imported
        server = subprocess.Popen(command, pass_fds=[fd], stdin=subprocess.DEVNULL, env=environment)
        theirs.close()
        try:
            yield type("Manager", (ForkingManager,), {"server": Server(ours, answers)})
        finally:
            ours.shutdown(socket.SHUT_RDWR)
            server.wait()


class Server:
    """Asks the process at the other end of `connection` for kernels."""

    def __init__(self, connection: socket.socket, answers: TextIO):
        self._connection, self._answers = connection, answers
        self._lock = threading.Lock()

    def fork(self, **order: Any) -> psutil.Process:
        """Raises RuntimeError where there is no such process any more."""
        with self._lock:
            try:
                self._connection.sendall(json.dumps(order).encode() + b"\n")
                return psutil.Process(int(self._answers.readline()))
            except (OSError, ValueError, psutil.NoSuchProcess) as error:
                raise RuntimeError(f"the process that forks kernels has ended: {error}") from error


def serve(fd: int) -> None:
    """Fork a kernel for every line on the socket `fd`, and answer with its process's number, until that is closed."""
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # what is imported stays: no kernel need look through it for garbage
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that the system forgets a kernel that has ended
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = socket.socket(fileno=fd)
    for line in connection.makefile():
        if not (pid := os.fork()):
            os.close(connection.detach())
            return become_kernel(**json.loads(line))
        connection.sendall(f"{pid}\n".encode())


def become_kernel(arguments: list[str], environment: dict[str, str], folder: str | None) -> None:
    """Turn this process into the kernel that `python -m ipykernel_launcher` would be with these arguments."""
    from ipykernel.kernelapp import IPKernelApp

    os.setsid()  # as jupyter_client starts its kernels, so that signals reach those whom the kernel starts
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder or ".")
    sys.argv = [LAUNCHER, *arguments, f"--IPKernelApp.parent_handle={os.getppid()}"]  # with which the kernel ends
    IPKernelApp.launch_instance()


class Forked:
    """A kernel's process with what jupyter_client asks of a `subprocess.Popen`."""

    stdin = stdout = stderr = None

    def __init__(self, process: psutil.Process):
        self._process, self.pid = process, process.pid

    def poll(self) -> int | None:
        return None if self._process.is_running() else 0  # who forked it has its status

    def wait(self) -> int:
        self._process.wait()
        return 0

    def send_signal(self, number: int) -> None:
        with suppress(psutil.NoSuchProcess):
            self._process.send_signal(number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


class ForkingProvisioner(LocalProvisioner):
    """Has this Python's own kernels forked by `server`, and starts any other."""

    server: Server

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        if cmd[0] != sys.executable or LAUNCHER not in cmd:
            return await super().launch_kernel(cmd, **kwargs)
        self.cwd = kwargs.get("cwd")
        order = {"environment": dict(kwargs["env"]), "folder": self.cwd and str(self.cwd)}
        process = self.server.fork(arguments=cmd[cmd.index(LAUNCHER) + 1 :], **order)
        self.process = Forked(process)  # type: ignore[assignment]
        self.pid = self.pgid = process.pid  # it will be its group's first
        return self.connection_info


class ForkingManager(AsyncKernelManager):
    """A kernel manager whose kernels are forked by `server`."""

    server: ClassVar[Server]

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        self.provisioner = ForkingProvisioner(kernel_spec=self.kernel_spec, parent=self)
        self.provisioner.server = self.server
