"""Where things lie: the one home of every folder that the suite reads or writes.

In a checkout that home is the repository's root. An installed copy has its notebooks and the reference run's records in
`share/labreport`, and works in the folder that `labreport new` made, or else in the current one. `LABREPORT_HOME` names
another home.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
MARKER = ".labreport"  # an empty file in a folder that `labreport new` made
CHECKOUT = (PACKAGE.parent / "pyproject.toml").exists()


def _share() -> Path:
    """Where an installed copy's notebooks lie: beside the package (`pip install --target`), or below the prefix."""
    beside = PACKAGE.parent / "share" / "labreport"
    return beside if beside.is_dir() else Path(sys.prefix) / "share" / "labreport"


REPOSITORY = PACKAGE.parent if CHECKOUT else _share()


def home() -> Path:
    """The folder that holds `figures/`, `runs/`, `build/` and `data/`."""
    if named := os.environ.get("LABREPORT_HOME"):
        return Path(named).expanduser().resolve()
    here = Path.cwd()
    return REPOSITORY if CHECKOUT else next((p for p in (here, *here.parents) if (p / MARKER).exists()), here)


def notebooks() -> Path:
    """The notebooks: the home's own, else those that came with the code."""
    own = home() / "notebooks"
    return own if own.is_dir() else NOTEBOOKS


NOTEBOOKS = REPOSITORY / "notebooks"


def figures(profile: str) -> Path:
    """Figures, tables and the report of one profile."""
    return home() / "figures" / profile


def records(profile: str) -> Path:
    """The run records of one profile: their only home."""
    return figures(profile) / "records"


def runs(profile: str) -> Path:
    """Checkpoints and weights: heavy, and made again when missing."""
    return home() / "runs" / profile


def compiled() -> Path:
    """Libraries that were compiled for this machine's processor: made again when missing."""
    return home() / "runs" / "compiled"


def build(profile: str) -> Path:
    """Executed notebooks and the typeset report."""
    return home() / "build" / profile


def data() -> Path:
    """Where the dataset is looked for, and downloaded to, when no other folder is named."""
    return home() / "data"


@contextmanager
def variables(**wanted: str) -> Iterator[None]:
    """Set environment variables, such as LABREPORT_HOME, for what is done and started meanwhile."""
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
