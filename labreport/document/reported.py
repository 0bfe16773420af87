"""The chapter on anyone's report as a document of its own, from the reference run and without training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from labreport import __version__, paths
from labreport.document.execute import alone, execute, headless
from labreport.document.formats import check_formats
from labreport.document.typeset import Chapter, Frame, Report, write_documents
from labreport.evidence.tables import is_cifar10
from labreport.lab import reported
from labreport.lab.session import Lab, caveat_of

SUBTITLE = "A report's numbers beside each other, and beside what the reference run measured"


def build_reported(path: str | Path, formats: Sequence[str] = ("pdf", "html")) -> Report:
    """Ask the numbers of a TOML file whether they can be right, and write what is found in these formats.

    Everything goes to `build/reported/`.

    Raises:
        ReportedError: the file cannot be read, or something in it is not of the form.
        ReportError: the notebook stopped, or what it shows cannot be typeset.
    """
    check_formats(formats)
    path = Path(path).expanduser().absolute()
    report = reported.read(path)  # before anything runs
    with paths.variables(LABREPORT_HOME=str(paths.home() / "build" / "reported"), LABREPORT_REPORTED=str(path)):
        lab = Lab.open("paper")
        notebook = paths.NOTEBOOKS / "reported.ipynb"
        with alone(paths.build(lab.profile)), headless(lab):
            chapter = Chapter(notebook.stem, execute(notebook, lab), notebook.parent)
            return write_documents([chapter], Frame(_cover(report.title, lab)), lab.profile, formats)


def _cover(title: str, lab: Lab) -> dict:
    runs = {name: records for name, records in lab.reference().items() if records}
    n = sum(map(len, runs.values()))
    on = caveat_of(runs) or ("CIFAR-10" if runs and all(map(is_cifar10, runs.values())) else "none")
    facts = {
        "Beside": f"the reference run: {n} trainings of {len(runs)} networks",
        "Images": on,
        "Version": f"labreport {__version__}",
    }
    return {
        "title": title,
        "pagetitle": title,
        "series": "Reported numbers, asked",
        "subtitle": SUBTITLE,
        "notices": [],
        "facts": [{"name": name, "value": value} for name, value in facts.items()],
    }
