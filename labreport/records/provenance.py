"""What made a result: the machine, the versions, and the commit of the code."""

from __future__ import annotations

import functools
import platform
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from labreport.paths import REPOSITORY
from labreport.records.record import Environment

if TYPE_CHECKING:
    import torch


def environment(device: torch.device, *, bf16: bool = False) -> Environment:
    """Of a training on `device` now, with the CPU threads that are set."""
    import torch

    precision = "bf16 autocast" if bf16 else "fp32"
    if device.type == "cuda":
        name, extensions = torch.cuda.get_device_name(device), f"CUDA {torch.version.cuda}, driver {_driver()}"
        if not bf16 and torch.backends.cudnn.conv.fp32_precision == "tf32":  # type: ignore[attr-defined]  # torch's default on Ampere and later
            precision = "fp32, TF32 in convolutions"
    else:
        name = processor() if device.type == "cpu" else f"{device.type.upper()} of {processor()}"
        extensions = torch.backends.cpu.get_cpu_capability()
        if extensions.startswith("AVX512") and torch.cpu._is_avx512_bf16_supported():
            extensions += " with bfloat16"
    return Environment(
        device=name,
        extensions=extensions,
        threads=torch.get_num_threads(),
        precision=precision,
        torch=str(torch.__version__),
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
    )


@functools.cache
def processor() -> str:
    """The processor's model, as its maker calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        parts = (line.partition(":") for line in reversed(lines))
        fields = {name.strip(): value.strip() for name, _, value in parts}
        family = f" (family {fields['cpu family']}, model {fields['model']})" if "cpu family" in fields else ""
        return f"{fields['model name']}{family}"
    except (OSError, KeyError):
        said = output("sysctl", "-n", "machdep.cpu.brand_string")
        return said or platform.processor() or platform.machine()


def _driver() -> str:
    said = output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return said.splitlines()[0] if said else "unknown"


@functools.cache
def commit() -> str:
    """The commit that this code is of, with a `+` where the package differs from it; empty outside a checkout."""
    folder = str(REPOSITORY)
    top = output("git", "-C", folder, "rev-parse", "--show-toplevel")
    if not top or Path(top).resolve() != REPOSITORY:
        return ""  # an installed copy that lies in somebody else's repository
    revision = output("git", "-C", folder, "rev-parse", "--short=12", "HEAD")
    changed = output("git", "-C", folder, "status", "--porcelain", "--", "labreport", "notebooks")
    return f"{revision}{'+' * bool(changed)}" if revision else ""


def output(*command: str) -> str:
    """What a command prints, or nothing where it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
