"""The whole report: notebooks run in order, and what they show typeset, without TeX or a browser.

    notebooks ──papermill──▶ build/<profile>/*.ipynb ──nbconvert──▶ one HTML source ──pandoc, typst──▶ report.pdf
                                                                        └─pandoc──▶ report.html, report.docx, tex/

Nothing here knows what the notebooks compute. The title page tells which data and records the session used, and the
summary after the contents is made from these records.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from labreport import paths
from labreport.document.errors import ReportError
from labreport.document.execute import alone, execute_all, parameters_of
from labreport.document.formats import check_formats
from labreport.document.typeset import Chapter, Report, framed, write_documents
from labreport.lab.session import Lab


def build_report(
    profile: str | None = None,
    data_dir: str | Path | None = None,
    device: str | None = None,
    seed: int | None = None,
    *,
    notebooks: Sequence[Path | str] | None = None,
    formats: Sequence[str] = ("pdf", "html"),
) -> Report:
    """Execute the notebooks for one session, as `Lab.open` understands it, then write the report in these formats.

    By default the notebooks are those of `chapters_in`; formats are pdf, html, docx and tex.

    Raises:
        ValueError: a parameter has a value that cannot be used, or the weights that are named cannot.
        ReportError: a notebook cannot be read or stopped, or what it shows cannot be typeset.
    """
    check_formats(formats)
    lab = Lab.open(profile, seed, data_dir, device)
    notebooks = chapters_in(paths.notebooks()) if notebooks is None else list(map(Path, notebooks))
    if not notebooks:
        raise ReportError(f"{paths.notebooks()}: no notebooks here; run this in a complete checkout of the repository")
    for notebook in notebooks:
        parameters_of(notebook)  # before anything runs
    if not lab.reports_only:
        from labreport.networks import pretrained  # imports torch

        pretrained.check_named()  # before hours of other trainings
    with alone(paths.build(lab.profile)):
        return _build(notebooks, lab, formats)


def _build(notebooks: Sequence[Path], lab: Lab, formats: Sequence[str]) -> Report:
    for sentence in lab.store.scan().left_out:
        print(f"left out: {sentence}", file=sys.stderr)
    expected = None
    if not lab.complete and lab.profile != "smoke":
        from labreport.document.forecast import forecast, told  # imports torch

        expected = forecast(notebooks, lab)
        for line in told(expected, lab):
            print(line, flush=True)
    with ThreadPoolExecutor(1) as pool:
        frame = pool.submit(framed, lab) if lab.reports_only else None  # no record will be added
        executed = execute_all(notebooks, lab, [one.seconds for one in expected] if expected else None)
    began = time.perf_counter()
    chapters = [Chapter(path.stem, ran, path.parent) for path, ran in zip(notebooks, executed, strict=True)]
    report = write_documents(chapters, frame.result() if frame else framed(lab), lab.profile, formats)
    print(f"typeset … {time.perf_counter() - began:.0f} s", flush=True)
    return report


def chapters_in(folder: Path) -> list[Path]:
    """The notebooks `NN_….ipynb` of a folder by their names, without JupyterLab's copies."""
    found = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    return [path for path in found if not re.search(r"-Copy\d+$", path.stem)]
