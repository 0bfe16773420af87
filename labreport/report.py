"""Runs the notebooks in order and typesets what they show: a web page and a PDF, without TeX or a browser.

    notebooks ──papermill──▶ build/<profile>/*.ipynb ──nbconvert──▶ one HTML source ──pandoc──▶ report.html
                                                                                  └─pandoc, typst──▶ report.pdf

Nothing here knows what the notebooks compute. The title page tells which data and records the session used, and the
summary after the contents is made from these records.
"""

from __future__ import annotations

import ast
import base64
import dataclasses
import datetime
import hashlib
import html
import json
import multiprocessing
import os
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pandas as pd
import papermill
import pypandoc
import typst
from nbclient.exceptions import DeadKernelError
from nbconvert import HTMLExporter

from labreport import __version__, paths, tables
from labreport.claims import Claim, claims, ranking
from labreport.lab import Lab, table_html
from labreport.records import DataInfo, RunRecord, write_atomically
from labreport.tables import RecordsByName

PACKAGE = Path(__file__).resolve().parent
TEMPLATES = PACKAGE / "templates"
PARAMETERS = ("profile", "seed", "data_dir", "device")

TITLE = "A CIFAR-10 lab report, measured again"
SUBTITLE = (
    "Convolution and cross-entropy, a baseline network, two optimisations, ResNet-18 and other methods: "
    "the numbers that were reported, beside the numbers that this code measured"
)
PROFILE_WORDS = {
    "smoke": "smoke: a few steps of each training, to test the machinery",
    "quick": "quick: the same recipes on shortened schedules",
    "paper": (
        "paper: the lab report’s protocol where it states one; "
        "what it leaves open is chosen, and each recipe’s table says so"
    ),
}
# Markdown, each in a box on the title page.
PROFILE_NOTICES = {
    "smoke": "**A test of the machinery.** Every training was cut to a few steps: the numbers mean nothing.",
    "quick": "**Shortened schedules.** The numbers are a first look; the lab report’s protocol is the profile *paper*.",
}
DATA_WORDS = {
    "official": "CIFAR-10, verified by md5",
    "unverified copy": "CIFAR-10, unverified copy",
    "synthetic stand-in": "synthetic stand-in: drawn shapes",
}
DATA_NOTICES = {
    "unverified copy": "**Unverified copy of CIFAR-10.** The md5 of the files read is not the official one.",
    "synthetic stand-in": "**Synthetic stand-in.** No number measured on it is a result on CIFAR-10.",
}
NOTATION = "mean ± standard deviation over (n) seeds, with a 95 % interval"
# Of the run that came with the code, which no record can tell.
REFERENCE_CONDITIONS = "Trainings ran two side by side, and partly beside other work: their times are upper bounds."


class ReportError(RuntimeError):
    """The report cannot be built; the message is one sentence that says why."""


@dataclass(frozen=True)
class Report:
    """Where a finished report lies. `table` is the comparison table in Markdown, which the last notebook writes."""

    pdf: Path
    html: Path
    figures: Path
    table: Path


def build_report(
    profile: str | None = None,
    data_dir: str | Path | None = None,
    device: str | None = None,
    seed: int | None = None,
    *,
    notebooks: Sequence[Path] | None = None,
) -> Report:
    """Execute the notebooks for one session, as `Lab.open` understands it, then write `report.html` and `report.pdf`.

    By default the notebooks are the repository's, in the order of their names.

    Raises:
        ValueError: a parameter has a value that cannot be used.
        ReportError: a notebook has other parameters or stopped, or what it shows cannot be typeset.
    """
    lab = Lab.open(profile, seed, data_dir, device)
    notebooks = sorted(paths.NOTEBOOKS.glob("[0-9]*.ipynb")) if notebooks is None else notebooks
    if not notebooks:
        raise ReportError(f"{paths.NOTEBOOKS}: no notebooks here; run this in a complete checkout of the repository")
    for notebook in notebooks:
        check_parameters(notebook)
    executed = execute_all(notebooks, lab)
    began = time.perf_counter()
    report = typeset(executed, lab)
    print(f"typeset … {time.perf_counter() - began:.0f} s", flush=True)
    return report


# --- running the notebooks --------------------------------------------------------------------------------------------


def check_parameters(notebook: Path) -> None:
    """Raise ReportError unless the cell tagged `parameters` sets exactly profile, seed, data_dir and device.

    Papermill only logs a parameter that a notebook does not have, and the notebook would run with its default.
    """
    try:
        cells = nbformat.read(notebook, as_version=4).cells
    except (OSError, ValueError) as error:
        raise ReportError(f"{notebook}: not a readable notebook ({error})") from error
    source = "\n".join(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", ()))
    assignments = (statement for statement in ast.parse(source).body if isinstance(statement, ast.Assign))
    names = {target.id for assignment in assignments for target in assignment.targets}
    if odd := names ^ set(PARAMETERS):
        raise ReportError(
            f"{notebook}: the cell tagged 'parameters' must set {', '.join(PARAMETERS)} and nothing else; "
            f"missing or unknown: {', '.join(sorted(odd))}"
        )


@contextmanager
def headless() -> Iterator[None]:
    """Tell the kernels started meanwhile that nobody looks on: no live curves, no sliders."""
    before = os.environ.get("LABREPORT_HEADLESS")
    os.environ["LABREPORT_HEADLESS"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["LABREPORT_HEADLESS"]
        else:
            os.environ["LABREPORT_HEADLESS"] = before


def execute_all(notebooks: Sequence[Path], lab: Lab) -> list[nbformat.NotebookNode]:
    """Run the notebooks one after the other; or, where nothing is left to train, one on each core."""
    labels = [f"[{number}/{len(notebooks)}] {notebook.stem}" for number, notebook in enumerate(notebooks, start=1)]
    labs = [dataclasses.replace(lab)] * len(notebooks)  # without the data that this session may have read
    if not lab.complete:
        return list(map(execute_and_tell, labels, notebooks, labs))
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(execute_and_tell, labels, notebooks, labs))


def execute_and_tell(label: str, notebook: Path, lab: Lab) -> nbformat.NotebookNode:
    began = time.perf_counter()
    print(f"{label} …", flush=True)
    executed = execute(notebook, lab)
    print(f"{label} … {time.perf_counter() - began:.0f} s", flush=True)
    return executed


def execute(notebook: Path, lab: Lab) -> nbformat.NotebookNode:
    """Run one notebook into `build/<profile>/`, its messages and training bars on this terminal.

    What ran before an error is kept there.
    """
    output = paths.build(lab.profile) / notebook.name
    output.parent.mkdir(parents=True, exist_ok=True)
    data_dir = str(lab.data_dir) if lab.data_dir else None
    try:
        with headless():
            return papermill.execute_notebook(
                notebook,
                output,
                dict(zip(PARAMETERS, (lab.profile, lab.seed, data_dir, lab.device), strict=True)),
                kernel_name="python3",
                language="python",
                cwd=notebook.parent,
                progress_bar=False,
                stdout_file=sys.stdout,
                stderr_file=sys.stderr,
                extra_arguments=["--log-level=CRITICAL"],  # of the kernel itself; tracebacks come with the notebook
            )
    except papermill.PapermillExecutionError as error:
        # With the cell that papermill inserts for the parameters, its index from 0 is the notebook's own count from 1.
        cell = f"cell {error.cell_index} ({error.source.strip().splitlines()[0]})"
        said = " ".join(f"{error.ename}: {error.evalue}".split())
        raise ReportError(f"{notebook.name} stopped in {cell} with {said} (see {output})") from error
    except DeadKernelError as error:
        raise ReportError(
            f"{notebook.name} stopped because its kernel died, often for want of memory (see {output}); "
            "the same command goes on from the last checkpoint"
        ) from error


# --- what they show ---------------------------------------------------------------------------------------------------


def typeset(notebooks: Sequence[nbformat.NotebookNode], lab: Lab) -> Report:
    """Write `report.html` and `report.pdf` from executed notebooks."""
    build, figures = paths.build(lab.profile), paths.figures(lab.profile)
    systems = lab.records()
    records = [record for runs in systems.values() for record in runs]
    references = (TEMPLATES / "references.html").read_text()
    chapters = [summary(lab, systems), *map(chapter, notebooks), references, models_appendix()]
    source = images_apart("\n".join(chapters), build)
    cover = title_page(lab, records)
    write_atomically(build / "cover.json", json.dumps(cover, ensure_ascii=False, indent=1).encode())

    report = Report(build / "report.pdf", build / "report.html", figures, figures / "table1.md")
    page, document = web_page(source, build), pdf(source, build, measured(records))
    write_atomically(report.html, page)
    write_atomically(report.pdf, document)
    write_atomically(figures / "report.pdf", document)
    return report


def chapter(notebook: nbformat.NotebookNode) -> str:
    """One executed notebook as HTML: its text and outputs, without code, messages and widgets."""
    notebook = nbformat.from_dict(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if belongs_on_paper(output)]
    exporter = HTMLExporter(
        template_name="basic",
        exclude_input=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
    )
    body, _ = exporter.from_notebook_node(notebook)
    return body


def belongs_on_paper(output: nbformat.NotebookNode) -> bool:
    """False for streams, which hold bars and messages to whoever runs this, and for widgets, which need a kernel."""
    widget = "application/vnd.jupyter.widget-view+json" in output.get("data", ())
    return not widget and output.output_type != "stream"


def images_apart(source: str, build: Path) -> str:
    """Write the images that lie in `source` as data to `build/images/`, and name the files there instead.

    Pandoc would need minutes for some tens of megabytes of such data.
    """
    shutil.rmtree(build / "images", ignore_errors=True)
    (build / "images").mkdir(parents=True)

    def write(match: re.Match) -> str:
        content = base64.b64decode(match["data"])
        name = f"images/{hashlib.sha256(content).hexdigest()[:16]}.{match['kind']}"
        (build / name).write_bytes(content)
        return f'src="{name}"'

    return re.sub(r'src="data:image/(?P<kind>\w+)(\+xml)?;base64,(?P<data>[^"]+)"', write, source)


def images_inside(page: str, build: Path) -> str:
    """The inverse of `images_apart`."""

    def read(match: re.Match) -> str:
        content = (build / match["name"]).read_bytes()
        kind = match["kind"].replace("svg", "svg+xml")
        return f'src="data:image/{kind};base64,{base64.b64encode(content).decode()}"'

    return re.sub(r'src="(?P<name>images/\w+\.(?P<kind>\w+))"', read, page)


def models_appendix() -> str:
    """The source of the networks as a chapter of its own."""
    return (
        '<h1 class="unnumbered">Appendix: source of the models</h1>\n'
        "<p>The file <code>labreport/models.py</code>, as it was when this report was built.</p>\n"
        f'<pre class="python"><code>{html.escape((PACKAGE / "models.py").read_text())}</code></pre>'
    )


# --- the title page ---------------------------------------------------------------------------------------------------


def title_page(lab: Lab, records: Sequence[RunRecord]) -> dict:
    """Pandoc's metadata for the title page; values are Markdown."""
    data = {record.data for record in records} or (set() if lab.reports_only else {lab.data.info})
    facts = {"Profile": PROFILE_WORDS[lab.profile], "Data": "; ".join(sorted(map(data_words, data))) or "none"}
    if records:
        last = measured(records)
        facts["Trainings"] = f"{len(records)} runs of {len({record.name for record in records})} networks"
        facts["Conditions"] = conditions(lab, records)
        facts["Measured"] = f"{last.day} {last:%B %Y}"
        facts["Numbers"] = NOTATION
        facts["Versions"] = f"Python {environments(records, 'python')}, labreport {__version__}"
    else:
        facts |= {"Trainings": "none was recorded for this profile", "Versions": f"labreport {__version__}"}
    notices = [PROFILE_NOTICES.get(lab.profile), *(DATA_NOTICES.get(info.source) for info in data)]
    return {
        "title": TITLE,
        "pagetitle": TITLE,
        "series": "Machine Learning · Assignment 2 · Lab report",
        "subtitle": SUBTITLE,
        "notices": list(dict.fromkeys(filter(None, notices))),
        "facts": [{"name": name, "value": value} for name, value in facts.items()],
    }


def data_words(data: DataInfo) -> str:
    counts = f"{data.n_train:,} training, {data.n_val:,} validation and {data.n_test:,} test images"
    return f"{DATA_WORDS[data.source]}; {counts}; fingerprint {data.fingerprint}"


def conditions(lab: Lab, records: Sequence[RunRecord]) -> str:
    """What the trainings ran on, of all records together, and what is known of the committed run besides."""
    device, threads, precision, torch = (
        environments(records, key) for key in ("device", "threads", "precision", "torch")
    )
    text = f"{device}; {threads} thread{'s' * (threads != '1')} a training; {precision}; PyTorch {torch}."
    return f"{text} {REFERENCE_CONDITIONS}" if lab.reports_only else text


def environments(records: Sequence[RunRecord], key: str) -> str:
    return ", ".join(sorted({str(record.environment.get(key, "unknown")) for record in records}))


def measured(records: Sequence[RunRecord]) -> datetime.datetime:
    """When the last training was finished, in UTC. It dates the report: the same records give the same document.

    Without records it is now.
    """
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    return max((datetime.datetime.fromisoformat(record.finished) for record in records), default=now)


# --- the summary ------------------------------------------------------------------------------------------------------


def summary(lab: Lab, systems: RecordsByName) -> str:
    """What was measured, on one page as HTML: Table 1, the ranking, how the report's numbers and claims fare."""
    heading = '<h1 class="unnumbered">Summary</h1>'
    records = [record for runs in systems.values() for record in runs]
    if not records:
        return f"{heading}\n<p>No training was recorded for this profile, so there is nothing to sum up.</p>"
    frame = tables.table1(systems).drop(columns=["MiB", "MFLOPs"])
    caption = (
        f"Table 1 of the lab report as measured: {NOTATION}; verdict: the measured value, relative to the reported one"
    )
    titled = f"{caption} ({lab.caveat})" if lab.caveat else caption
    under = "; ".join(filter(None, (lab.caveat, conditions(lab, records))))
    return "\n".join(
        (
            heading,
            table_html(frame, "summary", titled),
            f"<p>{html.escape(ranking(systems))}</p>",
            f"<p>{html.escape(verdicts(frame))}</p>",
            judged(claims(systems)),
            f"<p><strong>Conditions:</strong> {html.escape(under)}</p>",
        )
    )


def verdicts(table1: pd.DataFrame) -> str:
    """Which of the report's accuracies were measured higher, lower or alike, as a sentence."""
    compared = table1[table1["Verdict"] != tables.NONE]
    if compared.empty:
        return "None of the report’s accuracies can be compared with these runs."
    groups = compared.groupby("Verdict", sort=False)["Method"]
    found = ", ".join(f"{verdict} {len(names)} ({'; '.join(names)})" for verdict, names in groups)
    return f"Beside {len(compared)} of the report’s accuracies stands a measured one: {found}."


def judged(found: Sequence[Claim]) -> str:
    """The report's claims with their verdicts, as HTML."""
    counts = Counter(claim.verdict.replace(tables.NONE, "not judged") for claim in found)
    tally = ", ".join(f"{verdict} {count}" for verdict, count in counts.most_common())
    lines = (f"<li>{html.escape(f'{c.text} ({c.place})')}: <strong>{c.verdict}</strong></li>" for c in found)
    link = '<a href="#which-of-the-reports-claims-hold">evidence and tests</a>'
    return f"<p>Of the report’s {len(found)} claims ({link}): {tally}.</p>\n<ul>{''.join(lines)}</ul>"


# --- typesetting ------------------------------------------------------------------------------------------------------


def web_page(source: str, build: Path) -> bytes:
    """The report as one HTML file that needs no network: images inside, math as MathML."""
    options = ["--mathml", "--section-divs", "--number-sections", "--toc", "--toc-depth=2"]
    return images_inside(pandoc(source, "html5", "report.html", options, build), build).encode()


def pdf(source: str, build: Path, date: datetime.datetime) -> bytes:
    """The report as a PDF. `report.typ` and its images stay in `build`, for a look when something is not right."""
    main = build / "report.typ"
    main.write_text(pandoc(source, "typst", "report.typ", ["--syntax-highlighting=idiomatic"], build))
    try:
        return typst.compile(main, root=build, ignore_system_fonts=True, timestamp=date)
    except typst.TypstError as error:
        raise ReportError(f"{main}: typst stopped with: {error.message} {' '.join(error.hints)}".rstrip()) from error


def pandoc(source: str, to: str, template: str, options: Sequence[str], build: Path) -> str:
    """Convert the notebooks' HTML. What pandoc cannot convert, a formula say, is an error and not a gap on the page."""
    reader = "html+tex_math_dollars+auto_identifiers+smart-native_divs-native_spans"
    arguments = [
        "--standalone",
        "--fail-if-warnings",
        "--wrap=none",
        "--metadata-file=cover.json",
        f"--lua-filter={TEMPLATES / 'report.lua'}",
        f"--template={TEMPLATES / template}",
        *options,
    ]
    try:
        return pypandoc.convert_text(source, to, reader, extra_args=arguments, cworkdir=str(build))
    except RuntimeError as error:
        said = " ".join(str(error).split())
        raise ReportError(f"what the notebooks show cannot be converted to {to}: {said}") from error
