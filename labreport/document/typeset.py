"""Executed notebooks as one web page and one PDF, by pandoc and typst."""

from __future__ import annotations

import base64
import datetime
import hashlib
import html
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pypandoc
import typst
from nbconvert import HTMLExporter

from labreport import paths
from labreport.document.cover import measured, records_appendix, summary, title_page
from labreport.document.errors import ReportError
from labreport.files import write_atomically, writing
from labreport.lab.session import Lab

TEMPLATES = Path(__file__).resolve().parent / "templates"
MODELS = Path(__file__).resolve().parent.parent / "networks" / "models.py"


@dataclass(frozen=True)
class Report:
    """Where a finished report lies. `table` is the comparison table in Markdown, which the last notebook writes."""

    pdf: Path
    html: Path
    figures: Path
    table: Path


def typeset(notebooks: Sequence[nbformat.NotebookNode], lab: Lab) -> Report:
    """Write `report.html` and `report.pdf` from executed notebooks."""
    build, figures = paths.build(lab.profile), paths.figures(lab.profile)
    systems = lab.records()
    records = [record for runs in systems.values() for record in runs]
    references = (TEMPLATES / "references.html").read_text()
    appendices = [records_appendix(records), models_appendix()]
    chapters = [summary(lab, systems), *map(chapter, notebooks), references, *appendices]
    with writing(build):
        source = images_apart("\n".join(chapters), build)
    cover = title_page(lab, systems)
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
        "<p>The file <code>labreport/networks/models.py</code>, as it was when this report was built.</p>\n"
        f'<pre class="python"><code>{html.escape(MODELS.read_text())}</code></pre>'
    )


def web_page(source: str, build: Path) -> bytes:
    """The report as one HTML file that needs no network: images inside, math as MathML."""
    options = ["--mathml", "--section-divs", "--number-sections", "--toc", "--toc-depth=2"]
    return images_inside(pandoc(source, "html5", "report.html", options, build), build).encode()


def pdf(source: str, build: Path, date: datetime.datetime) -> bytes:
    """The report as a PDF. `report.typ` and its images stay in `build`, for a look when something is not right."""
    main = build / "report.typ"
    write_atomically(main, pandoc(source, "typst", "report.typ", ["--syntax-highlighting=idiomatic"], build).encode())
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
