"""Every system of the lab report as a recipe, with each hyperparameter and where it comes from.

To know one recipe is to know them all: `RECIPES["baseline"]` is data, `dataclasses.replace` makes a variant of it, and
`train(recipe, data, seed)` trains either. `stated` names the settings that the lab report gives; every other one was
chosen here, and `why` says how.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass, field

PROFILES = ("smoke", "quick", "paper")
SEEDS = {"smoke": 1, "quick": 1, "paper": 3}  # trainings of each recipe
SMOKE_IMAGES = 400  # of an epoch in `smoke`
CHOICES = {
    "optimizer": ("sgd", "adam", "muon"),
    "schedule": ("constant", "step", "linear"),
    "normalization": ("standard", "mean"),
    "flip": ("none", "random", "alternating"),
    "precision": ("fp32", "bf16"),
    "tta": ("none", "flip", "flip_shift"),
}


@dataclass(frozen=True)
class Recipe:
    """How one network is built and trained.

    The fields up to `features_from` decide what is computed and make up a run's identity; the rest is description.
    """

    name: str
    model: str  # a key of labreport.networks.models.MODELS
    epochs: int
    batch_size: int
    optimizer: str  # sgd, adam, or muon (filters by Muon, the rest by SGD)
    lr: float
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: str = "constant"  # constant, step (× gamma every step_size epochs), linear (up in warm-up, then to 0)
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
    low_resolution_epochs: int = 0  # the first epochs see images of low_resolution² pixels
    low_resolution: int = 32
    train_images: int = 0  # train on the first so many images only; 0: on all
    train_on_val: bool = False  # train on the validation images, too, once they have done their part in the choices
    whiten: bool = False  # set the frozen first convolution from patches of the training images
    pretrained: bool = False  # start from ImageNet weights, but for the last layer
    # What turns the images into features first: a recipe's trained network, or with `pretrained` a network of MODELS.
    features_from: str = ""

    title: str = field(default="", metadata={"identity": False})
    family: str = field(default="", metadata={"identity": False})  # what it is made from, or its own name
    stated: tuple[str, ...] = field(default=(), metadata={"identity": False})
    why: dict[str, str] = field(default_factory=dict, hash=False, metadata={"identity": False})

    def __post_init__(self) -> None:
        """Raise ValueError where a setting cannot be meant."""
        object.__setattr__(self, "family", self.family or self.name)
        if not re.fullmatch(r"\w[\w-]{0,59}", self.name):  # what follows a dot would be taken for a file's kind
            raise ValueError(
                f"a recipe cannot be named {self.name!r}, since files are named after it; use up to 60 letters, "
                "digits, underscores and dashes, and begin with one of the first three"
            )
        for name, words in CHOICES.items():
            if (value := getattr(self, name)) not in words:
                raise ValueError(f"recipe {self.name!r}: no {name} {value!r}; there are {', '.join(words)}")
        least = {"epochs": 1, "batch_size": 1, "step_size": int(self.schedule == "step")}
        least |= dict.fromkeys(("translate", "cutout", "low_resolution_epochs", "train_images"), 0)
        for name, smallest in least.items():
            value = getattr(self, name)
            if not isinstance(value, int) or value < smallest:
                raise ValueError(
                    f"recipe {self.name!r}: {name} is {value!r}, and must be a whole number from {smallest} up"
                )
        if not 0 <= self.lr < math.inf:
            raise ValueError(f"recipe {self.name!r}: lr is {self.lr!r}, and must be a number from 0 up")
        for name in ("momentum", "warmup", "label_smoothing"):
            if not 0 <= (value := getattr(self, name)) < 1:
                raise ValueError(f"recipe {self.name!r}: {name} is {value!r}, and must be from 0 up and below 1")

    def settings(self) -> dict:
        """The settings that decide what is computed, as plain JSON values.

        One that is at its default is left out, so that a field added later leaves the names of older runs valid.
        """
        fields = [f for f in dataclasses.fields(self) if f.metadata.get("identity", True)]
        return {f.name: getattr(self, f.name) for f in fields if getattr(self, f.name) != f.default}

    def image_side(self, epoch: int, side: int) -> int:
        """How many pixels a side the images of this epoch (from 0) have, when their own are `side`."""
        return self.low_resolution if epoch < self.low_resolution_epochs else side


def _by_name(*recipes: Recipe) -> dict[str, Recipe]:
    """The suite's own recipes, each a family of its own."""
    return {recipe.name: dataclasses.replace(recipe, family="") for recipe in recipes}


_AS_BASELINE = "chosen: as in section II, since the report names no change"
_BF16 = "chosen: for speed, where the device has it; its effect on the accuracy was not measured"
_AIRBENCH = "chosen: airbench94_muon (K. Jordan, 2024)"

_RESNET18 = Recipe(
    name="resnet18",
    title="ResNet-18",
    model="resnet18",
    epochs=10,
    batch_size=64,
    optimizer="adam",
    lr=1e-3,
    normalization="mean",
    precision="bf16",
    stated=("model", "epochs", "optimizer", "lr", "normalization"),
    why={"batch_size": "chosen: the report states none for its ResNet", "precision": _BF16},
)

RECIPES: dict[str, Recipe] = _by_name(
    Recipe(
        name="baseline",
        title="Baseline (Origin)",
        model="baseline",
        epochs=300,
        batch_size=10,
        optimizer="sgd",
        lr=1e-4,
        momentum=0.9,
        stated=("epochs", "batch_size", "lr", "momentum"),
        why={
            "model": "chosen: widths 16, 32, 64, hidden layer 64; the report gives kernels and padding only",
            "optimizer": "chosen: the report names a momentum, hence SGD",
            "flip": "chosen: the report mentions no augmentation",
        },
    ),
    Recipe(
        name="first_optimization",
        title="First optimization",
        model="first_optimization",
        epochs=60,
        batch_size=10,
        optimizer="sgd",
        lr=1e-4,
        momentum=0.9,
        why={
            "model": "chosen: widths 16, 24, 48, then 32 and 128, which give the 75,186 parameters that are stated",
            "epochs": "chosen: a fifth of the baseline's; validation accuracy rises 0.4 points in the last ten",
            "batch_size": _AS_BASELINE,
            "optimizer": _AS_BASELINE,
            "lr": _AS_BASELINE,
            "momentum": _AS_BASELINE,
        },
    ),
    Recipe(
        name="fine_tuned",
        title="Fine-tuning",
        model="fine_tuned",
        epochs=21,
        batch_size=256,
        optimizer="adam",
        lr=3e-3,
        schedule="step",
        step_size=7,
        gamma=0.1,
        flip="random",
        stated=("model", "optimizer", "lr", "step_size", "gamma"),
        why={
            "schedule": "stated by the report's code, which as printed never steps it (E34)",
            "epochs": "chosen: three plateaus of the stated schedule; after the third the rate is a thousandth",
            "batch_size": "chosen on validation images: 78.6 % with 256, 76.5 % with 512",
            "flip": "chosen on validation images: 78.6 % with flips, 77.9 % with shifts of 2 pixels as well",
        },
    ),
    _RESNET18,
    dataclasses.replace(
        _RESNET18,
        name="resnet18_pretrained",
        title="ResNet-18, pretrained",
        pretrained=True,
        stated=(*_RESNET18.stated, "pretrained"),
    ),
    Recipe(
        name="deep_cnn",
        title="Deep CNN (for TensorFlow [2])",
        model="deep_cnn",
        epochs=20,
        batch_size=125,
        optimizer="sgd",
        lr=0.1,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        schedule="linear",
        warmup=0.2,
        flip="random",
        translate=3,
        label_smoothing=0.1,
        precision="bf16",
        why={
            "model": "chosen: a VGG-style network with batch norm and dropout; [2] is known by its accuracy only",
            "epochs": "chosen on validation images, to reach [2]: 90.4 % with 20, 89.0 % with 12 and cutout",
            "schedule": "chosen: one rise and one fall (L. Smith, arXiv:1803.09820), for few epochs",
            "precision": _BF16,
        },
    ),
    Recipe(
        name="dnn_softmax",
        title="DNN and softmax (for [3])",
        model="dense_softmax",
        epochs=15,
        batch_size=125,
        optimizer="adam",
        lr=1e-3,
        schedule="linear",
        weight_decay=1e-4,
        features_from="deep_cnn",
        why={
            "model": "chosen: two hidden layers; [3] says only that a DNN and a softmax classifier see features",
            "features_from": "chosen: the pooled last features of the deep CNN trained here",
        },
    ),
    Recipe(
        name="fast94",
        title="Fast recipe (ours)",
        model="fast94",
        epochs=10,
        batch_size=2000,
        optimizer="muon",
        lr=0.24,
        momentum=0.6,
        weight_decay=2e-6,
        schedule="linear",
        flip="alternating",
        translate=2,
        label_smoothing=0.2,
        precision="bf16",
        tta="flip_shift",
        low_resolution_epochs=5,
        low_resolution=24,
        train_on_val=True,
        whiten=True,
        why={
            "epochs": "chosen on validation images: 94.1 % with 10, 94.0 % with 8 and 9, 93.4 % with 7 (log)",
            "optimizer": _AIRBENCH,
            "lr": _AIRBENCH,
            "momentum": _AIRBENCH,
            "weight_decay": _AIRBENCH + ", a sample and step",
            "low_resolution_epochs": "chosen: half of the epochs, for speed",
            "train_on_val": "chosen: the validation images had done their part",
            "precision": _BF16,
        },
    ),
)

_SHORT = dataclasses.replace(
    RECIPES["fast94"],
    name="fast94_short",
    title="Fast recipe, 3 epochs",
    epochs=3,
    low_resolution_epochs=2,
    train_on_val=False,
    why={},
)


def _without(name: str, title: str, **settings) -> Recipe:
    return dataclasses.replace(_SHORT, name=f"fast94_{name}", title=title, **settings)


# What each ingredient of `fast94` buys: its recipe cut to three epochs, with one thing changed at a time.
ABLATIONS: dict[str, Recipe] = _by_name(
    _SHORT,
    _without("learned", "first layer learned, not whitened", whiten=False),
    _without("random", "random filters, not the identity", model="fast94_random"),
    _without("sgd", "SGD, not Muon", optimizer="sgd", lr=8.0, momentum=0.85, nesterov=True, weight_decay=5e-4),
    _without("random_flip", "random flip, not alternating", flip="random"),
    _without("unsmoothed", "no label smoothing", label_smoothing=0.0),
    _without("still", "no flip and no shift", flip="none", translate=0),
    _without("full_size", "all epochs at 32×32", low_resolution_epochs=0),
)

_HEAD = Recipe(
    name="frozen_32",
    title="ResNet-18 frozen, 32 pixels, linear head",
    model="linear",
    epochs=20,
    batch_size=125,
    optimizer="adam",
    lr=3e-3,
    schedule="linear",
    precision="bf16",
    pretrained=True,
    features_from="resnet18",
    why={
        "lr": "chosen on validation images at 32 and 64 pixels: 68.6 and 75.8 %, with 0.001 67.6 and 75.9 %",
        "normalization": "chosen: nearly that of the images which the weights are from",
        "features_from": "chosen: the pooled features of the network that the report starts from, untrained here",
        "precision": _BF16,
    },
)

# What the report's pretrained network can do with images nearer to the size that its stem was made for.
UPSCALED: dict[str, Recipe] = _by_name(
    _HEAD,
    *(
        dataclasses.replace(
            _HEAD,
            name=f"frozen_{side}",
            title=f"ResNet-18 frozen, {side} pixels, linear head",
            features_from=f"resnet18_at_{side}",
        )
        for side in (64, 128, 224)
    ),
    dataclasses.replace(
        RECIPES["resnet18_pretrained"],
        name="resnet18_pretrained_64",
        title="ResNet-18, pretrained, 64 pixels",
        model="resnet18_at_64",
    ),
)

# Too much work for a CPU. After airbench96 (K. Jordan, 2024), without its selection of hard samples.
FOR_GPUS: dict[str, Recipe] = _by_name(
    dataclasses.replace(
        RECIPES["fast94"],
        name="fast96",
        title="Fast recipe, wide (ours)",
        model="fast96",
        epochs=45,
        translate=4,
        cutout=12,
        low_resolution_epochs=0,
    )
)

KNOWN = RECIPES | ABLATIONS | UPSCALED | FOR_GPUS
# Those of a kin are compared with each other.
KIN = {"systems": RECIPES, "ablations": ABLATIONS, "upscaled": UPSCALED, "for GPUs": FOR_GPUS}

# A first look on any laptop: 0.035 PFLOP in all, with what is only classified, and most of it for the two networks that
# are to come out ahead; fewer and smaller images, fewer epochs, smaller batches, higher rates where few steps are left.
_QUICK: dict[str, dict] = {
    "baseline": {"train_images": 20_000, "epochs": 2, "lr": 1e-3},
    "first_optimization": {"train_images": 20_000, "epochs": 1, "lr": 1e-3},
    "fine_tuned": {"train_images": 20_000, "epochs": 3, "step_size": 2},
    "resnet18": {"train_images": 8_000, "epochs": 1},
    "resnet18_pretrained": {"train_images": 8_000, "epochs": 1},
    "deep_cnn": {"train_images": 20_000, "epochs": 2, "low_resolution_epochs": 1, "low_resolution": 16},
    "dnn_softmax": {"train_images": 20_000, "epochs": 3},
    "fast94": {
        "train_images": 12_000,
        "epochs": 2,
        "batch_size": 500,
        "low_resolution_epochs": 2,
        "train_on_val": False,
        "tta": "none",
    },
}


def for_profile(recipe: Recipe, profile: str) -> Recipe:
    """The recipe as a profile runs it: unchanged for `paper`, shortened for `quick`, one epoch for `smoke`.

    One of your own is shortened as the one that it is made from, unless it has other epochs than that; what you have
    changed yourself stays, and is said to be yours.

    Raises:
        ValueError: there is no such profile.
    """
    if profile not in PROFILES:
        raise ValueError(f"no profile {profile!r}; there are {', '.join(PROFILES)}")
    origin = KNOWN.get(recipe.family)
    yours = _changed(recipe, origin) if origin and recipe.name not in KNOWN else set()
    if origin and yours:
        title = f"{origin.title} ({recipe.name})" if recipe.title == origin.title else recipe.title
        recipe = _with(recipe, dict.fromkeys(yours, "yours"), title=title)
    shorter = _QUICK.get(recipe.family, {}) if profile == "quick" and "epochs" not in yours else {}
    if profile == "smoke":
        shorter = {"epochs": 1, "batch_size": min(recipe.batch_size, 100), "train_images": SMOKE_IMAGES}
    settings = {name: value for name, value in shorter.items() if profile == "smoke" or name not in yours}
    changed = {name for name, value in settings.items() if value != getattr(recipe, name)}
    return _with(recipe, dict.fromkeys(changed, f"changed: shortened for the profile {profile}"), **settings)


def kin_of(recipe: Recipe) -> str:
    """The kin of a recipe; one's own stands beside the report's systems."""
    return next((kin for kin, recipes in KIN.items() if recipe.name in recipes), "systems")


def shortened(recipe: Recipe, profile: str) -> bool:
    """Whether the profile has changed a setting of the recipe."""
    return for_profile(recipe, profile).settings() != recipe.settings()


def _changed(recipe: Recipe, origin: Recipe) -> set[str]:
    """The settings, but for the name, in which the two differ."""
    a, b = recipe.settings(), origin.settings()
    return {name for name in (a | b) if name != "name" and a.get(name) != b.get(name)}


def _with(recipe: Recipe, why: dict[str, str], **settings) -> Recipe:
    """The recipe with other settings; those with a new reason are then no longer the report's."""
    stated = tuple(name for name in recipe.stated if name not in why)
    return dataclasses.replace(recipe, **settings, stated=stated, why=recipe.why | why)
