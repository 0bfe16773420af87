"""Training steps of the tiny-batch networks in C++, on CPUs: sources beside this file, compiled where they train.

An exact shortcut: the same steps on the same batches, in another order of additions. It is taken where a C++ compiler
is there and its library finds torch's own result; otherwise torch trains. `LABREPORT_COMPILED=0` switches it off.
"""

from __future__ import annotations

import copy
import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labreport import paths
from labreport.facts.recipes import Recipe
from labreport.files import StorageError, write_atomically
from labreport.networks.models import Baseline, FirstOptimization

COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-ffp-contract=fast", "-w")
# The first that the compiler knows. GCC splits vectors of 512 bits on processors that have them, unless it is told.
TUNINGS = (("-march=native", "-mprefer-vector-width=512"), ("-march=native",), ("-mcpu=native",), ())
REALS = {torch.float32: "float", torch.float64: "double"}
MAX_BATCH = 16  # the sums of a whole batch should stay in registers; torch is fast for large ones
TOLERANCE = 1e-3  # of what a step changes: in float32, rounding may decide which of two pixels a pooling passes on


@dataclass(frozen=True, eq=False)
class CompiledSteps:
    """Training steps on batches of `batch` images, of whose rows and columns the first `side` count.

    `compiler` names what built them, for the record.
    """

    library: ctypes.CDLL
    batch: int
    side: int
    compiler: str

    def __call__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Train on a chunk: inputs (S · batch, 3, H, W) of `side` to 32 pixels a side, labels (S · batch,).

        Parameters, momenta and running statistics are the model's and the optimiser's, before and after. Returns the
        chunk's summed loss, float64, and its number of right answers.
        """
        (group,) = optimizer.param_groups
        weights = [p.detach() for p in group["params"]]
        momenta = [optimizer.state[p].setdefault("momentum_buffer", torch.zeros_like(p)) for p in group["params"]]
        statistics = [b for b in model.buffers() if b.is_floating_point()]
        packed = [(tensors, _packed(tensors)) for tensors in (weights, momenta, statistics)]
        pixels = inputs[..., : self.side, : self.side].permute(0, 2, 3, 1).contiguous()
        labels, real = labels.contiguous(), ctypes.c_float if inputs.dtype == torch.float32 else ctypes.c_double
        loss, hits = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.int64)
        steps = len(labels) // self.batch
        self.library.train(
            *(ctypes.c_void_p(tensor.data_ptr()) for tensor in (*(flat for _, flat in packed), pixels, labels)),
            ctypes.c_int64(steps),
            real(group["lr"]),
            real(group["momentum"]),
            *(ctypes.c_void_p(tensor.data_ptr()) for tensor in (loss, hits)),
        )
        for tensors, flat in packed:
            _unpack(flat, tensors)
        for count in (b for b in model.buffers() if not b.is_floating_point()):  # of the batches that norms have seen
            count += steps
        return loss, hits


@dataclass(frozen=True)
class Kernel:
    """How a network is trained in C++, on the first `side` rows and columns of its images."""

    source: Path
    side: int

    def code(self) -> str:
        """The C++ code without comments and layout, for its digest."""
        text = HEADER.read_text() + self.source.read_text()
        return re.sub(r"\s+", " ", re.sub(r"//.*", "", text)).strip()


HEADER = Path(__file__).with_name("step.h")
KERNELS: dict[Callable[..., nn.Module], Kernel] = {
    Baseline: Kernel(HEADER.with_name("step.cpp"), side=Baseline.visible),
    FirstOptimization: Kernel(HEADER.with_name("step_normalized.cpp"), side=32),
}


def _channels_last(tensor: Tensor) -> Tensor:
    """A view of a parameter in the order of the C++ code: what it does to a map, with the map's channels last.

    `Baseline`'s first dense layer sees its map so, too; that of `FirstOptimization` sees it as torch flattens it.
    """
    if tensor.shape[1:] == (64 * 3 * 3,):
        tensor = tensor.unflatten(1, (64, 3, 3))
    return tensor.permute(0, 2, 3, 1) if tensor.ndim == 4 else tensor


def _packed(tensors: list[Tensor]) -> Tensor:
    return torch.cat([_channels_last(tensor).flatten() for tensor in tensors]) if tensors else torch.empty(0)


def _unpack(flat: Tensor, tensors: list[Tensor]) -> None:
    for tensor, piece in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        view = _channels_last(tensor)
        view.copy_(piece.view(view.shape))


def steps_for(recipe: Recipe, model: nn.Module, inputs: Tensor) -> CompiledSteps | None:
    """The compiled steps of this training on images `inputs` (N, H, W, 3), or None where torch has to do them."""
    if os.environ.get("LABREPORT_COMPILED") == "0" or (kernel := KERNELS.get(type(model))) is None:
        return None
    dtype, batch = next(model.parameters()).dtype, min(recipe.batch_size, len(inputs))
    known = (
        model.fc2.out_features == 10  # type: ignore[union-attr]
        and dtype in REALS
        and inputs.device.type == "cpu"
        and inputs.ndim == 4
        and all(kernel.side <= side <= 32 for side in inputs.shape[1:3])
        and not recipe.low_resolution_epochs
        and (recipe.optimizer, recipe.precision) == ("sgd", "fp32")
        and recipe.momentum > 0
        and not (recipe.nesterov or recipe.weight_decay or recipe.label_smoothing)
        and recipe.schedule in ("constant", "step")  # one rate a chunk
        and batch <= MAX_BATCH
    )
    return _checked_steps(type(model), dtype, batch) if known else None  # type: ignore[arg-type]  # hashed as a class


@functools.cache
def _checked_steps(network: Callable[..., nn.Module], dtype: torch.dtype, batch: int) -> CompiledSteps | None:
    """The steps, built where they have to be; None, with a line that says why if a compiler was there and failed."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        return None
    try:
        kernel = KERNELS[network]
        library, version = _build(kernel, compiler, dtype, batch)
        steps = CompiledSteps(ctypes.CDLL(str(library)), batch, kernel.side, f"{Path(compiler).name} {version}")
        if (difference := _difference(steps, network, dtype)) <= TOLERANCE:
            return steps
        reason = f"its steps differ from torch's by {difference:.1%}; move {library} away to build it again"
    except (OSError, StorageError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        reason = said.strip().splitlines()[0] if said.strip() else type(error).__name__
    print(f"compiled training step: not used, torch trains ({compiler}: {reason})", file=sys.stderr)
    return None


def _build(kernel: Kernel, compiler: str, dtype: torch.dtype, batch: int) -> tuple[Path, str]:
    """The library for this processor and compiler, from the cache or built, and the compiler's version.

    Raises:
        CalledProcessError, TimeoutExpired: the compiler fails.
        StorageError, OSError: the library cannot be written, or the compiler not be run.
    """
    defines = (f"-DREAL={REALS[dtype]}", f"-DBATCH={batch}")
    for tuning in TUNINGS:
        flags = [*FLAGS, *tuning, *defines]
        # A compiler's predefined macros name its version and every extension of the processor that it compiles for.
        asked = _run(compiler, *flags, "-dM", "-E", "-x", "c++", os.devnull, check=tuning == TUNINGS[-1])
        if asked.returncode == 0:
            break
    key = hashlib.sha256("\0".join([kernel.code(), *flags, asked.stdout]).encode()).hexdigest()[:16]
    library = paths.compiled() / f"step-{key}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory() as folder:
            built = Path(folder) / library.name
            _run(compiler, *flags, f"-I{HEADER.parent}", str(kernel.source), "-o", str(built), check=True)
            write_atomically(library, built.read_bytes())  # so that two processes may build it at once
    version = re.search(r'__VERSION__ "(.*)"', asked.stdout)
    return library, version[1] if version else "of unknown version"


def _run(*command: str, check: bool) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=check, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)


def _difference(steps: CompiledSteps, network: Callable[..., nn.Module], dtype: torch.dtype) -> float:
    """How far two steps on noise lead from torch's: of any tensor of the state, as a share of what torch changes in it.

    What torch changes by less than a ten-thousandth of all its change is rounding, and measured against that share.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = network().to(dtype)
        inputs = torch.randn(2 * steps.batch, 3, 32, 32, dtype=dtype)
        labels = torch.randint(10, (2 * steps.batch,))
    before, plain = copy.deepcopy(model), copy.deepcopy(model)
    ours, theirs = (torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9) for m in (model, plain))
    steps(model, ours, inputs, labels)
    for x, y in zip(inputs.split(steps.batch), labels.split(steps.batch), strict=True):
        theirs.zero_grad()
        F.cross_entropy(plain(x), y).backward()
        theirs.step()
    three = list(zip(*(m.state_dict().values() for m in (model, plain, before)), strict=True))
    changes = torch.tensor([(b.double() - start).norm() for _, b, start in three])
    errors = torch.tensor([(a.double() - b).norm() for a, b, _ in three])
    return (errors / changes.clamp(min=1e-4 * changes.norm())).nan_to_num(torch.inf).max().item()
