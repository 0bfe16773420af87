"""A lab report on CIFAR-10 as notebooks: trained, measured and typeset by this package.

    from labreport import Lab, RECIPES, train

The public names are looked up when they are first used, so that `import labreport` costs nothing and loads no torch.
"""

from importlib import import_module

__version__ = "1.0.0"

_HOMES = {
    "Lab": "lab.session",
    "MODELS": "networks.models",
    "PROFILES": "facts.recipes",
    "RECIPES": "facts.recipes",
    "Recipe": "facts.recipes",
    "RunRecord": "records.record",
    "Store": "records.store",
    "build_report": "document.report",
    "for_profile": "facts.recipes",
    "load": "training.trained",
    "train": "training.train",
}
_MODULES = {
    "chapters": "lab.chapters",
    "claims": "evidence.claims",
    "explore": "lab.explore",
    "figures": "evidence.figures",
    "models": "networks.models",
    "tables": "evidence.tables",
}

__all__ = ["__version__", *_HOMES, *_MODULES]


def __getattr__(name: str):
    if name in _MODULES:
        return import_module(f"labreport.{_MODULES[name]}")
    if name not in _HOMES:
        raise AttributeError(f"module 'labreport' has no attribute {name!r}")
    return getattr(import_module(f"labreport.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
