"""Notebooks executed by papermill, one after the other or side by side."""

from __future__ import annotations

import difflib
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path

import nbformat
import papermill
from filelock import FileLock, Timeout
from jupyter_client.kernelspec import NoSuchKernel
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import ensure_event_loop
from nbclient.exceptions import DeadKernelError

from labreport import paths
from labreport.cpus import available_cpus
from labreport.document.errors import ReportError
from labreport.document.kernels import forking
from labreport.evidence.tables import duration
from labreport.files import writing
from labreport.lab.parameters import PARAMETERS, assigned_names
from labreport.lab.session import Lab
from labreport.running.signals import end_children

# The kernel's own: tracebacks of cells come with the notebook, and a race in its end (its control thread writes to a
# socket that is closed) concerns nobody.
KERNEL_LOGS = [
    "--log-level=CRITICAL",
    "--Application.logging_config={'loggers': {'tornado.general': {'level': 'CRITICAL'}}}",
]
START_TIMEOUT = 60  # seconds until a kernel must have answered


def parameters_of(notebook: Path) -> tuple[str, ...]:
    """Which of profile, seed, data_dir and device the cell tagged `parameters` sets; it may set others, too.

    Papermill only logs a parameter that a notebook does not have, so no other is passed.

    Raises:
        ReportError: this is no notebook, that cell is not Python, or it sets a name that looks like a misspelt one.
    """
    try:
        cells = nbformat.read(notebook, as_version=4).cells
    except (OSError, ValueError) as error:
        raise ReportError(f"{notebook}: not a readable notebook ({error})") from error
    source = "\n".join(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", ()))
    try:
        names = assigned_names(source)
    except SyntaxError as error:
        raise ReportError(
            f"{notebook}: the cell tagged 'parameters' is not Python (line {error.lineno}: {error.msg})"
        ) from error
    for missing in (name for name in PARAMETERS if name not in names):
        if close := difflib.get_close_matches(missing, sorted(names - set(PARAMETERS)), n=1, cutoff=0.8):
            raise ReportError(f"{notebook}: the cell tagged 'parameters' sets {close[0]}; is {missing} meant?")
    return tuple(name for name in PARAMETERS if name in names)


def headless(lab: Lab) -> AbstractContextManager[None]:
    """Set what the kernels started meanwhile see: that nobody looks on (no live curves, no sliders), and this code.

    Another copy of the package may be installed where they look first. Profile and data are told, too, since a chapter
    of one's own need not have parameters.
    """
    path = os.pathsep.join(filter(None, (str(paths.PACKAGE.parent), os.environ.get("PYTHONPATH"))))
    data = {"LABREPORT_DATA": str(lab.data_dir)} if lab.data_dir else {}
    return paths.variables(LABREPORT_HEADLESS="1", PYTHONPATH=path, LABREPORT_PROFILE=lab.profile, **data)


@contextmanager
def kernel_started(output: Path) -> Iterator[None]:
    """Say in one sentence that a kernel does not start or answer."""
    try:
        yield
    except DeadKernelError:
        raise  # after it had started
    except (RuntimeError, NoSuchKernel, FileNotFoundError, PermissionError) as error:
        if getattr(error, "filename", None) == str(output):
            raise
        raise ReportError(
            f"{output.name}: the kernel python3 does not start or does not answer ({error}); see that "
            "`jupyter kernelspec list` names the one of this environment, and that the loopback network is up"
        ) from error


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold `folder`, in which a report is built, once no other process does."""
    lock = FileLock(folder / "report.lock")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"another report is being built in {folder}; waiting for it", file=sys.stderr, flush=True)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def execute_all(
    notebooks: Sequence[Path], lab: Lab, seconds: Sequence[float] | None = None
) -> list[nbformat.NotebookNode]:
    """Run the notebooks one after the other; or, where nothing is left to train, one on each core.

    `seconds` is what each is expected to take, if that is known.
    """
    labels = [f"[{number}/{len(notebooks)}] {notebook.stem}" for number, notebook in enumerate(notebooks, start=1)]
    if seconds is not None:
        left = [f"about {duration(sum(seconds[i:]))} left for this and what follows" for i in range(len(notebooks))]
        labels = [f"{label} ({words})" for label, words in zip(labels, left, strict=True)]
    at_once = lab.complete and len(notebooks) > 1
    forked = forking() if at_once else nullcontext(AsyncKernelManager)
    jobs = available_cpus() if at_once else 1
    # Kernels that share the cores would wait for each other's threads busily: three times the work for one notebook.
    one_each = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")} if at_once else {}
    # Threads, also where it is one: in the main thread nbclient would take over SIGTERM and SIGINT.
    with paths.variables(**one_each), headless(lab), forked as manager, ThreadPoolExecutor(jobs) as pool:
        order = list(range(len(notebooks)))
        if at_once:  # the longest first, so that none is left alone at the end
            order.sort(key=lambda i: code_cells(notebooks[i]), reverse=True)
        try:
            run = partial(execute_and_tell, lab, manager)
            executed = pool.map(run, [labels[i] for i in order], [notebooks[i] for i in order])
            return [notebook for _, notebook in sorted(zip(order, executed, strict=True))]
        except KeyboardInterrupt:
            end_children()
            raise


def code_cells(notebook: Path) -> int:
    return sum(cell.cell_type == "code" for cell in nbformat.read(notebook, as_version=4).cells)


def execute_and_tell(lab: Lab, manager: type[AsyncKernelManager], label: str, notebook: Path) -> nbformat.NotebookNode:
    began = time.perf_counter()
    print(f"{label} …", flush=True)
    try:
        executed = execute(notebook, lab, manager)
    finally:
        ensure_event_loop().close()  # this thread's, which nbclient leaves open
    print(f"{label} … {time.perf_counter() - began:.0f} s", flush=True)
    return executed


def execute(notebook: Path, lab: Lab, manager: type[AsyncKernelManager] = AsyncKernelManager) -> nbformat.NotebookNode:
    """Run one notebook into `build/<profile>/`, its messages and training bars on this terminal.

    What ran before an error is kept there. The kernel is `manager`'s; call this within `headless`.
    """
    output = paths.build(lab.profile) / notebook.name
    with writing(output.parent):
        output.parent.mkdir(parents=True, exist_ok=True)
    logging.getLogger("papermill").setLevel(logging.ERROR)  # else it says that black, a formatter, is not installed
    data_dir = str(lab.data_dir) if lab.data_dir else None
    values = dict(zip(PARAMETERS, (lab.profile, lab.seed, data_dir, lab.device), strict=True))
    names = parameters_of(notebook)
    try:
        with writing(output), kernel_started(output):
            return papermill.execute_notebook(
                notebook,
                output,
                {name: values[name] for name in names},
                kernel_name="python3",
                language="python",
                resources={"metadata": {"path": str(notebook.parent.absolute())}},  # where the kernel works
                progress_bar=False,
                start_timeout=START_TIMEOUT,
                stdout_file=sys.stdout,
                stderr_file=sys.stderr,
                extra_arguments=KERNEL_LOGS,
                kernel_manager_class=manager,
            )
    except papermill.PapermillExecutionError as error:
        # With the cell that papermill inserts for the parameters, its index from 0 is the notebook's own count from 1.
        cell = f"cell {error.cell_index + (not names)} ({error.source.strip().splitlines()[0]})"
        said = " ".join(f"{error.ename}: {error.evalue}".split())
        raise ReportError(f"{notebook.name} stopped in {cell} with {said} (see {output})") from error
    except DeadKernelError as error:
        raise ReportError(
            f"{notebook.name} stopped because its kernel died, often for want of memory (see {output}); "
            "the same command goes on from the last checkpoint"
        ) from error
