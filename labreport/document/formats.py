"""One HTML source as a PDF, a web page, a Word file and a TeX source, by pandoc and typst."""

from __future__ import annotations

import base64
import datetime
import logging
import re
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pypandoc
import typst

from labreport.document.errors import ReportError
from labreport.files import write_atomically

TEMPLATES = Path(__file__).resolve().parent / "templates"
READER = "html+tex_math_dollars+auto_identifiers+smart-native_divs-native_spans"
SVG_SCALE = 200.0  # dots per inch of the pictures in a Word file


class FormulaError(Exception):
    """Formulas that pandoc cannot convert; `formulas` are their TeX sources."""

    def __init__(self, formulas: Sequence[str]) -> None:
        super().__init__(*formulas)
        self.formulas = formulas


class LetterError(Exception):
    """Letters that no font here has, in one string."""

    def __init__(self, letters: str) -> None:
        super().__init__(letters)
        self.letters = letters


@dataclass(frozen=True)
class Source:
    """The report as HTML whose pictures lie in `build/images/`, with `build/cover.json` beside them."""

    html: str
    build: Path
    date: datetime.datetime


def pdf(source: Source) -> Path:
    """A PDF that keeps PDF/UA-1, which typst checks. `report.typ` stays, for a look when something is not right."""
    main = source.build / "report.typ"
    main.write_text(pandoc(source, "typst", "report.typ", ["--syntax-highlighting=idiomatic"]))
    options: dict[str, Any] = {"root": source.build, "ignore_system_fonts": not needs_other_fonts(source.html)}
    try:
        document = typst.compile(main, timestamp=source.date, pdf_standards=["ua-1"], **options)
    except typst.TypstError as error:
        if texts := re.findall('the text `"(.+?)"` could not be displayed', f"{error.message} {error.diagnostic}"):
            raise LetterError("".join(dict.fromkeys("".join(texts)))) from error
        raise ReportError(f"{main}: typst stopped with: {error.message} {' '.join(error.hints)}".rstrip()) from error
    return written(source.build / "report.pdf", document)


def web_page(source: Source) -> Path:
    """One HTML file that needs no network: pictures and the font of its math inside, math as MathML."""
    font = base64.b64encode((TEMPLATES / "math.woff2").read_bytes()).decode()
    options = [
        "--mathml",
        "--section-divs",
        "--number-sections",
        "--toc",
        "--toc-depth=2",
        "--syntax-highlighting=none",
    ]
    page = pandoc(source, "html5", "report.html", options)

    def inside(match: re.Match) -> str:
        content = (source.build / match["name"]).read_bytes()
        kind = match["kind"].replace("svg", "svg+xml")
        return f'src="data:image/{kind};base64,{base64.b64encode(content).decode()}"'

    # Browsers set no space between a function's name and what it is of, where that is not in brackets.
    page = re.sub(r"(<mo>(?:\u2061|&#8289;|&#x2061;)</mo>)(?!<mo[^>]*>\()", r'\1<mspace width="0.17em"></mspace>', page)
    page = page.replace("url(math.woff2)", f"url(data:font/woff2;base64,{font})")
    page = re.sub(r'src="(?P<name>images/[\w-]+\.(?P<kind>\w+))"', inside, page)
    return written(source.build / "report.html", page.encode())


def word(source: Source) -> Path:
    """A Word file: formulas that Word can edit, pictures as PNG."""
    made = source.build / "made.docx"  # pandoc writes a Word file in place
    options = ["--number-sections", "--toc", "--toc-depth=2", f"--reference-doc={TEMPLATES / 'reference.docx'}"]
    pandoc(drawn_as(source, "png"), "docx", None, options, made)
    report = written(source.build / "report.docx", made.read_bytes())
    made.unlink()
    return report


def tex(source: Source) -> Path:
    """`tex/report.tex`, IEEE's two-column form, with its pictures as PDF beside it."""
    folder = source.build / "tex"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "images").mkdir(parents=True)
    drawn = drawn_as(source, "pdf")
    text = pandoc(drawn, "latex", "report.tex", ["--syntax-highlighting=none"])
    for name in set(re.findall(r"images/[\w-]+\.\w+", drawn.html)):
        shutil.copy(source.build / name, folder / name)
    return written(folder / "report.tex", text.encode())


FORMATS: dict[str, Callable[[Source], Path]] = {"pdf": pdf, "html": web_page, "docx": word, "tex": tex}


def check_formats(names: Sequence[str]) -> None:
    """Raise ValueError for a name that is no format."""
    if unknown := [name for name in names if name not in FORMATS]:
        raise ValueError(f"format {', '.join(map(repr, unknown))} does not exist; choose among {', '.join(FORMATS)}")
    if not names:
        raise ValueError(f"no format is named; choose among {', '.join(FORMATS)}")


def drawn_as(source: Source, kind: str) -> Source:
    """The same source with its SVG pictures as PNG or PDF, drawn by typst."""

    def draw(match: re.Match) -> str:
        target = f"{match['stem']}.{kind}"
        if not (source.build / target).exists():
            page = f'#set page(width: auto, height: auto, margin: 0pt)\n#image("{match["stem"]}.svg", alt: "")'
            main = source.build / f"picture-{kind}.typ"
            main.write_text(page)
            drawing = typst.compile(main, root=source.build, format=kind, ppi=SVG_SCALE)  # type: ignore[call-overload]
            main.unlink()
            (source.build / target).write_bytes(drawing)
        return target

    return Source(re.sub(r"(?P<stem>images/[\w-]+)\.svg", draw, source.html), source.build, source.date)


ONE_AT_A_TIME = threading.Lock()  # pypandoc changes the process's folder, and looks for pandoc in a global


def pandoc(source: Source, to: str, template: str | None, options: Sequence[str], output: Path | None = None) -> str:
    """Convert the source. What pandoc cannot convert is an error, and not a gap on the page.

    Raises:
        FormulaError: some of its formulas are no TeX that pandoc knows.
        ReportError: anything else.
    """
    arguments = ["--standalone", "--fail-if-warnings", "--wrap=none", "--metadata-file=cover.json", *options]
    arguments += [f"--lua-filter={TEMPLATES / 'report.lua'}"]
    arguments += [f"--template={TEMPLATES / template}"] if template else []
    place = {"outputfile": str(output)} if output else {}
    logging.getLogger("pypandoc").setLevel(logging.CRITICAL)  # what it would log is in the error, too
    try:
        with ONE_AT_A_TIME:
            return pypandoc.convert_text(
                source.html, to, READER, extra_args=arguments, cworkdir=str(source.build), **place
            )
    except RuntimeError as error:
        if formulas := re.findall(r"Could not convert TeX math (.*?),? rendering as TeX", str(error), re.DOTALL):
            raise FormulaError([formula.strip() for formula in formulas]) from error
        said = " ".join(str(error).split())
        raise ReportError(f"what the notebooks show cannot be converted to {to}: {said}") from error


# Letters of East Asia and emoji.
OTHER_FONTS = re.compile("[\u1100-\u11ff\u2600-\u27bf\u2e80-\ud7ff\uf900-\ufaff\uff00-\uffef\U0001f000-\U0003ffff]")


def needs_other_fonts(text: str) -> bool:
    """Whether some of the text is in no font inside typst."""
    return OTHER_FONTS.search(text) is not None


def written(path: Path, content: bytes) -> Path:
    write_atomically(path, content)
    return path
