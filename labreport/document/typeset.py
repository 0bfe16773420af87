"""Executed notebooks as one document in every format that is asked for."""

from __future__ import annotations

import base64
import datetime
import functools
import hashlib
import html
import json
import logging
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter

from labreport import paths
from labreport.document.cover import measured, records_appendix, summary, title_page
from labreport.document.formats import FORMATS, TEMPLATES, FormulaError, LetterError, Source
from labreport.files import write_atomically
from labreport.lab.session import Lab

MODELS = Path(__file__).resolve().parent.parent / "networks" / "models.py"
ATTEMPTS = 20  # at one document; each names what stopped it
SHOWN = "show-code"  # the tag of a cell whose code the document shows


@dataclass(frozen=True)
class Report:
    """Where a finished report lies, by format. `table` is the comparison table that the last notebook writes."""

    documents: dict[str, Path]
    figures: Path
    table: Path

    @property
    def pdf(self) -> Path:
        return self.documents["pdf"]

    @property
    def html(self) -> Path:
        return self.documents["html"]


@dataclass(frozen=True)
class Chapter:
    """An executed notebook under its file's name without `.ipynb`."""

    name: str
    notebook: nbformat.NotebookNode
    folder: Path | None = None  # where pictures that its text names are looked for


@dataclass(frozen=True)
class Frame:
    """What stands around the chapters: pandoc's metadata for the title page, HTML before and after, and the date."""

    cover: dict
    before: str = ""
    after: str = ""
    date: datetime.datetime = field(default_factory=lambda: measured([]))


def framed(lab: Lab) -> Frame:
    """The frame of a session's report."""
    systems = lab.records()
    records = [record for runs in systems.values() for record in runs]
    after = [(TEMPLATES / "references.html").read_text(), records_appendix(records), models_appendix()]
    return Frame(title_page(lab, systems), summary(lab, systems), "\n".join(after), measured(records))


def write_documents(chapters: Sequence[Chapter], frame: Frame, profile: str, formats: Sequence[str]) -> Report:
    """The chapters in their frame, in these formats, in the profile's folders.

    A formula that cannot be set is named on stderr and stands there as TeX.
    """
    build, figures = paths.build(profile), paths.figures(profile)
    parts = [frame.before, *map(chapter_html, chapters), frame.after]
    source = Source(images_apart("\n".join(parts), build), build, frame.date)
    cover = frame.cover | {"lang": "en", "made": origins(chapters)}
    write_atomically(build / "cover.json", json.dumps(cover, ensure_ascii=False, indent=1).encode())
    with ThreadPoolExecutor() as pool:  # typst sets pages while pandoc converts for another format
        written = pool.map(lambda name: set_what_can_be(FORMATS[name], source, chapters), formats)
        documents = dict(zip(formats, written, strict=True))
    if "pdf" in documents:
        write_atomically(figures / "report.pdf", documents["pdf"].read_bytes())
    return Report(documents, figures, figures / "table1.md")


def set_what_can_be(write: Callable[[Source], Path], source: Source, chapters: Sequence[Chapter]) -> Path:
    """One document. What stops it is named on stderr, made harmless, and the rest is set."""
    for _ in range(ATTEMPTS):
        try:
            return write(source)
        except FormulaError as error:
            source = without_formulas(source, error.formulas, chapters)
        except LetterError as error:
            source = without_letters(source, error.letters, chapters)
    return write(source)


def chapter_html(chapter: Chapter) -> str:
    """One executed notebook as HTML: its text and outputs, and the code of cells tagged `show-code`."""
    notebook = nbformat.from_dict(chapter.notebook)
    written = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    for cell, text in zip(written, displayed([cell.source for cell in written]), strict=True):
        cell.source = text
    cells = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if belongs_on_paper(output)]
            if SHOWN in cell.metadata.get("tags", ()):
                cells.append(nbformat.v4.new_markdown_cell(f"```python\n{cell.source}\n```"))
        cells.append(cell)
    notebook.cells = cells
    exporter = HTMLExporter(
        template_name="basic",
        exclude_input=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
        embed_images=True,
    )
    exporter.log.setLevel(logging.CRITICAL)  # it would complain of pictures without a description
    body, _ = exporter.from_notebook_node(notebook, {"metadata": {"path": str(chapter.folder or "")}})
    body = re.sub('<b class="number">.*?</b> ', "", body)  # the document counts what it shows itself
    return pictures_or_names(body, chapter)


def belongs_on_paper(output: nbformat.NotebookNode) -> bool:
    """False for streams, which hold bars and messages to whoever runs this, and for widgets, which need a kernel."""
    widget = "application/vnd.jupyter.widget-view+json" in output.get("data", ())
    return not widget and output.output_type != "stream"


# --- where things are from --------------------------------------------------------------------------------------------


def own_cells(chapter: Chapter) -> list[tuple[int, nbformat.NotebookNode]]:
    """The notebook's cells with their numbers from 1, without the one that papermill inserts."""
    cells = [c for c in chapter.notebook.cells if "injected-parameters" not in c.metadata.get("tags", ())]
    return list(enumerate(cells, start=1))


def origins(chapters: Sequence[Chapter]) -> dict[str, dict[str, str]]:
    """`fig:…` or `tbl:…` → its file, and the notebook and cell that made it."""
    found = {}
    for chapter in chapters:
        for number, cell in own_cells(chapter):
            for kind, name in re.findall(r'id="(fig|tbl):([\w-]+)"', shown_html(cell)):
                file = f"{name}.{'svg' if kind == 'fig' else 'csv'}"
                place = {"notebook": chapter.name, "cell": str(number), "id": cell.get("id", "")}
                found[f"{kind}:{name}"] = {"file": f"`{file}`"} | {key: f"`{text}`" for key, text in place.items()}
    return found


def shown_html(cell: nbformat.NotebookNode) -> str:
    return "".join("".join(output.get("data", {}).get("text/html", "")) for output in cell.get("outputs", ()))


@functools.cache  # once, whatever the number of formats
def leave_out(chapter: str, cell: int, what: str) -> None:
    """Say what a document lacks, and in which cell it stands."""
    print(f"cannot be set: {chapter}.ipynb, cell {cell}: {what}", file=sys.stderr, flush=True)


def without_formulas(source: Source, formulas: Sequence[str], chapters: Sequence[Chapter]) -> Source:
    """The source with these formulas as code; each is named with its notebook and cell."""
    text = source.html
    for formula in dict.fromkeys(formulas):
        tex = r"\s*".join(map(re.escape, re.sub(r"\s", "", formula)))
        escaped = r"\s*".join(map(re.escape, re.sub(r"\s", "", html.escape(formula, quote=False))))
        code = f"<code>{html.escape(formula)}</code>"
        text = re.sub(rf"(\$\$?)\s*(?:{escaped}|{tex})\s*\1", code.replace("\\", r"\\"), text)
        for chapter in chapters:
            for number, cell in own_cells(chapter):
                if re.search(tex, f"{cell.source}{cell.get('outputs', '')}"):
                    leave_out(chapter.name, number, f"the formula {' '.join(formula.split())}")
    return Source(text, source.build, source.date)


def without_letters(source: Source, letters: str, chapters: Sequence[Chapter]) -> Source:
    """The source with a box for each of these letters, which no font here has; the cells that hold them are named."""
    for chapter in chapters:
        for number, cell in own_cells(chapter):
            if found := "".join(dict.fromkeys(c for c in f"{cell.source}{shown_html(cell)}" if c in letters)):
                leave_out(
                    chapter.name, number, f"{found}, since no font here has it; install one (Noto CJK, Noto Emoji)"
                )
    return Source(re.sub(f"[{re.escape(letters)}]", "□", source.html), source.build, source.date)


# --- what Markdown of notebooks holds and pandoc does not know --------------------------------------------------------

ENVIRONMENT = re.compile(r"(?<!\$)\\begin\{(align|equation|gather|eqnarray)(\*?)\}(.*?)\\end\{\1\2\}", re.DOTALL)
COLOUR = re.compile(r"\\(?:text)?color\s*\{[^{}]*\}")


def displayed(sources: Sequence[str]) -> list[str]:
    """The Markdown cells with environments as display math, numbered where they say so, and with links to equations."""
    tags: dict[str, str] = {}

    def environment(match: re.Match) -> str:
        body = match[3]
        return f"$${body}$$" if match[1] == "equation" else f"$$\\begin{{aligned}}{body}\\end{{aligned}}$$"

    def numbered(match: re.Match) -> str:
        body, anchors = match[1], ""
        for label in re.findall(r"\\label\{([^{}]*)\}", body):
            own = re.search(r"\\tag\*?\{([^{}]*)\}", body)
            tags[label] = own[1] if own else str(len(tags) + 1)
            body = re.sub(r"\\label\{[^{}]*\}", "" if own else rf"\\tag{{{tags[label]}}}", body, count=1)
            anchors += f'<a id="eq-{label.replace(":", "-")}"></a>'
        return anchors + "$$" + re.sub(r"\\tag\*?\{([^{}]*)\}", r"\\qquad\\text{(\1)}", body) + "$$"

    def reference(match: re.Match) -> str:
        label = match[1]
        if label not in tags:
            return f"({label})"
        return f"[({tags[label]})](#eq-{label.replace(':', '-')})"

    texts = []
    for source in sources:
        text = ENVIRONMENT.sub(environment, COLOUR.sub("", source))
        texts.append(re.sub(r"\$\$(.*?)\$\$", numbered, text, flags=re.DOTALL))
    return [re.sub(r"\$?\\(?:eq)?ref\{([^{}]*)\}\$?", reference, text) for text in texts]


def pictures_or_names(body: str, chapter: Chapter) -> str:
    """Pictures that were not found replaced by their names, each told with its cell."""

    def named(match: re.Match) -> str:
        source = html.unescape(match["source"])
        cells = [number for number, cell in own_cells(chapter) if source in cell.source]
        leave_out(chapter.name, cells[0] if cells else 0, f"the picture {source}, which is not there")
        return f"<em>[{html.escape(source)}]</em>"

    body = re.sub(r'<img\b[^>]*?src="(?!data:)(?P<source>[^"]*)"[^>]*>', named, body)
    undescribed = f' alt="a picture of the notebook {chapter.name}, which has no description"'
    return re.sub(r' alt="(No description has been provided for this image)?"', undescribed, body)


def images_apart(source: str, build: Path) -> str:
    """Write the images that lie in `source` as data to `build/images/`, and name the files there instead.

    Pandoc would need minutes for some tens of megabytes of such data.
    """
    shutil.rmtree(build / "images", ignore_errors=True)
    (build / "images").mkdir(parents=True)

    def write(match: re.Match) -> str:
        content = base64.b64decode(match["data"])
        stem = "-".join(filter(None, (match["name"], hashlib.sha256(content).hexdigest()[:8])))
        name = f"images/{stem}.{match['kind']}"
        (build / name).write_bytes(content)
        return f'{match["before"] or ""}src="{name}"'

    before = r'(?P<before><figure id="fig:(?P<name>[\w-]+)"><img )?'
    return re.sub(before + r'src="data:image/(?P<kind>\w+)(\+xml)?;base64,(?P<data>[^"]+)"', write, source)


def models_appendix() -> str:
    """The source of the networks as a chapter of its own."""
    return (
        '<h1 class="unnumbered">Appendix: source of the models</h1>\n'
        "<p>The file <code>labreport/networks/models.py</code>, as it was when this report was built.</p>\n"
        f'<pre class="python"><code>{html.escape(MODELS.read_text())}</code></pre>'
    )
