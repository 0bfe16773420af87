"""Every system of the lab report as a recipe, with each hyperparameter and where it comes from.

To know one recipe is to know them all: `RECIPES["baseline"]` is data, `dataclasses.replace` makes a variant of it, and
`train(recipe, data, seed)` trains either. `stated` names the settings that the lab report gives; every other setting was
chosen here, and `why` says how.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

PROFILES = ("smoke", "quick", "paper")


@dataclass(frozen=True)
class Recipe:
    """How one network is built and trained.

    The fields up to `features_from` decide what is computed and make up a run's identity; the rest is description.
    """

    name: str
    model: str  # a key of labreport.models.MODELS
    epochs: int
    batch_size: int
    optimizer: str  # sgd, adam, or muon (filters by Muon, the rest by SGD)
    lr: float
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: str = "constant"  # constant, step (× gamma every step_size epochs), linear (to 0), or cosine (to 0, after warm-up)
    step_size: int = 0  # epochs
    gamma: float = 1.0
    warmup: float = 0.0  # share of all steps over which the rate rises linearly from 0
    normalization: str = "standard"  # standard (mean and deviation per channel) or mean (mean subtracted only)
    flip: str = "none"  # none, random, or alternating (each image flipped every other epoch)
    translate: int = 0  # pixels, reflect-padded
    cutout: int = 0  # side of the erased square, pixels
    label_smoothing: float = 0.0
    precision: str = "fp32"  # fp32, or bf16 autocast where the device has it
    tta: str = "none"  # test-time average: none, flip, or flip_shift (flip and two 1-pixel shifts)
    low_resolution_epochs: float = 0.0  # the first epochs see images of low_resolution² pixels
    low_resolution: int = 32
    whiten: bool = False  # set the frozen first convolution from patches of the training images
    features_from: str = ""  # recipe whose trained network turns the images into features first

    title: str = field(default="", metadata={"identity": False})
    stated: tuple[str, ...] = field(default=(), metadata={"identity": False})
    why: dict[str, str] = field(default_factory=dict, hash=False, metadata={"identity": False})

    def settings(self) -> dict:
        """The settings that decide what is computed, as plain JSON values."""
        fields = [f for f in dataclasses.fields(self) if f.metadata.get("identity", True)]
        return {f.name: getattr(self, f.name) for f in fields}
