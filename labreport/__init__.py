"""A lab report on CIFAR-10 as notebooks: trained, measured and typeset by this package.

    from labreport import Lab, RECIPES, train

The public names are looked up when they are first used, so that `import labreport` costs nothing and loads no torch.
"""

from importlib import import_module

__version__ = "1.0.0"

_HOMES = {
    "Lab": "lab",
    "MODELS": "models",
    "PROFILES": "recipes",
    "RECIPES": "recipes",
    "Recipe": "recipes",
    "RunRecord": "records",
    "Store": "records",
    "build_report": "report",
    "for_profile": "recipes",
    "train": "training",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'labreport' has no attribute {name!r}")
    return getattr(import_module(f"labreport.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
