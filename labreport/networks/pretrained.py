"""ImageNet weights for torchvision's ResNet-18: torchvision's own, or a file that the user brings.

They are looked for in this order: the file that `LABREPORT_WEIGHTS` names, or the one in the folder that it names;
torch's cache; torchvision's server, unless `LABREPORT_OFFLINE` is set; a file `resnet18*.safetensors` or
`resnet18*.pth` in `data/`. Known by their sha256, all but torchvision's are called other ImageNet weights, and then by
the first line of a text file of the same name beside them, or else by the file's name.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pickle
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from labreport import paths
from labreport.networks import models

_PATTERNS = ("resnet18*.safetensors", "resnet18*.pth")
_WAY_OUT = "name another file with LABREPORT_WEIGHTS, or unset it for torchvision's weights"


class WeightsUnavailable(RuntimeError):
    """Pretrained weights are not on disk and cannot be downloaded."""


class WeightsError(ValueError):
    """A file of weights is missing, damaged, or not of this network."""


def weights_name() -> str:
    """What names the weights that `start_from_imagenet` would use, and their sha256. Nothing is loaded.

    Raises:
        WeightsUnavailable: no weights are on disk, and they cannot be downloaded.
        WeightsError: the file that was named, or the one in torch's cache, cannot be used.
    """
    return _name(find_file())


def start_from_imagenet(model: nn.Module) -> str:
    """Give the ResNet-18 that `model` is or holds its ImageNet weights, all but the last layer's.

    Returns what names the weights. A model without one, as a head on its features, stays as it is.

    Raises:
        WeightsUnavailable, WeightsError: as there; the latter too for a file that is cut off, runs code when loaded,
            is of another network, or holds a number that is not finite.
    """
    from labreport._torchvision import torchvision

    path = find_file()
    for network in (module for module in model.modules() if isinstance(module, torchvision.models.ResNet)):
        state = network.state_dict()
        wanted = {key: value for key, value in state.items() if not key.startswith("fc.")}
        network.load_state_dict(state | _checked(path, _load(path), wanted))
    return _name(path)


def is_named() -> bool:
    """Whether the weights to start from are named, by `LABREPORT_WEIGHTS`."""
    return bool(os.environ.get("LABREPORT_WEIGHTS"))


def named_weights() -> str | None:
    """`weights_name()` of the weights that are named: no others will do then. None where any will.

    Raises:
        WeightsError: they cannot be used.
    """
    return weights_name() if is_named() else None


def check_named() -> None:
    """Nothing where no weights are named, or they are of a file that a ResNet-18 can start from.

    Raises:
        WeightsError: they are not.
    """
    if is_named():
        start_from_imagenet(models.build("resnet18"))


# --- which file ------------------------------------------------------------------------------------------------------


def find_file() -> Path:
    """The file of weights that `start_from_imagenet` would use.

    Raises:
        WeightsUnavailable, WeightsError: as there.
    """
    if named := os.environ.get("LABREPORT_WEIGHTS"):
        path = Path(named).expanduser().absolute()  # not resolved: a note lies beside a link
        found = _only(path) if path.is_dir() else path
        if found is None or not found.is_file():
            holds = f"which holds no {' or '.join(_PATTERNS)}" if path.is_dir() else "which does not exist"
            raise WeightsError(f"LABREPORT_WEIGHTS names {path}, {holds}; {_WAY_OUT}")
        return found
    try:
        return _torchvisions()
    except WeightsUnavailable as error:
        if found := _only(paths.data()):
            return found
        raise WeightsUnavailable(
            f"{error}; name a file that holds such weights with LABREPORT_WEIGHTS, or put it into {paths.data()}"
        ) from error


def _only(folder: Path) -> Path | None:
    found = sorted(path for pattern in _PATTERNS for path in folder.glob(pattern))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise WeightsError(f"{folder} holds several files of weights ({names}); name one with LABREPORT_WEIGHTS")
    return found[0] if found else None


def _torchvisions() -> Path:
    """Torchvision's weights in torch's cache, downloaded with progress where they are not there."""
    from labreport._torchvision import torchvision

    url = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if not cached.exists():
        if os.environ.get("LABREPORT_OFFLINE", "0") not in ("", "0"):
            raise WeightsUnavailable(f"{cached.name} is not in torch's cache, and LABREPORT_OFFLINE forbids a download")
        if failure := _download(url, cached):
            raise WeightsUnavailable(f"the pretrained weights cannot be had from {url} ({failure})")
    if not _is_torchvisions(digest := _sha256(cached, *_stamp(cached))):
        raise WeightsError(
            f"{cached}: not the file that its name promises (its sha256 begins with {digest[:8]}); move it away, or "
            "name it with LABREPORT_WEIGHTS if it is meant"
        )
    return cached


@functools.cache  # one try a process: every training asks which weights it would start from
def _download(url: str, target: Path) -> str:
    """Fetch the file, checked by the hash in its name. Returns why it could not be had, or nothing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(target), hash_prefix=target.stem.rpartition("-")[2], progress=True)
    except (OSError, RuntimeError) as error:  # no network; or the file's hash is not the one in its name
        return str(error)
    return ""


# --- what names it ---------------------------------------------------------------------------------------------------


def _name(path: Path) -> str:
    digest = _sha256(path, *_stamp(path))
    if _is_torchvisions(digest):
        return f"torchvision IMAGENET1K_V1, sha256 {digest[:16]}"
    note = path.with_suffix(".txt")
    lines = note.read_text().split("\n") if note.is_file() else []
    return f"other ImageNet weights: {' '.join(''.join(lines[:1]).split()) or path.stem}, sha256 {digest[:16]}"


def _is_torchvisions(digest: str) -> bool:
    from labreport._torchvision import torchvision

    return digest.startswith(Path(torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url).stem.rpartition("-")[2])


def _stamp(path: Path) -> tuple[int, int]:
    """What changes when the file does."""
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size


@functools.cache
def _sha256(path: Path, changed: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- what it holds ---------------------------------------------------------------------------------------------------


def _load(path: Path) -> dict[str, Tensor]:
    """The file's tensors, read without running anything that it holds."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings(action="ignore"):  # torch's about old formats: what counts is said below
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: not read, since it holds more than tensors, or code that would run when it is loaded; save the "
            f"network's state_dict alone, or {_WAY_OUT}"
        ) from error
    except (OSError, SafetensorError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise WeightsError(f"{path}: cut off, or not a file of weights; get it again, or {_WAY_OUT}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path}: holds no state_dict (names and tensors); save it alone, or {_WAY_OUT}")
    return state


def _checked(path: Path, state: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of `state` the tensors that are wanted, as float32."""
    # Counters of batches, which old files lack, and which batch norm with a momentum does not read.
    needed = {key: value for key, value in wanted.items() if not key.endswith("num_batches_tracked")}
    wrong = sorted(key for key, value in needed.items() if key not in state or state[key].shape != value.shape)
    wrong += sorted(key for key in state if key not in wanted and not key.startswith("fc."))
    if wrong:
        raise WeightsError(
            f"{path}: not of torchvision's ResNet-18 ({len(wrong)} of its layers' names or shapes differ, the first is "
            f"{wrong[0]}); {_WAY_OUT}"
        )
    checked = {key: state[key].float() for key in needed}
    for key, value in checked.items():
        if not value.isfinite().all():
            raise WeightsError(f"{path}: {key} holds a number that is not finite; get the file again, or {_WAY_OUT}")
    return checked
