"""Where things lie: the one home of every folder that the suite reads or writes.

`LABREPORT_HOME` moves all of it elsewhere (the tests do that); by default it is the repository's root.
"""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
NOTEBOOKS = REPOSITORY / "notebooks"


def home() -> Path:
    """The folder that holds `figures/`, `runs/`, `build/` and `data/`."""
    return Path(os.environ.get("LABREPORT_HOME", REPOSITORY)).expanduser().resolve()


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
