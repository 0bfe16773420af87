"""Anyone's notebook as a chapter: other parameters or none, pictures, code, macros, numbers of equations, emoji."""

import base64
import io
import re
import shutil
import subprocess

import nbformat
import pytest
from fake_notebooks import FIGURE, html_output, paper_session, set_all
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from labreport import paths
from labreport.document import report
from labreport.document.execute import parameters_of

TEXT = r"""# 我的 notebook 🎉

$\newcommand{\R}{\mathbb{R}}$ Let $x \in \R^n$ and see [the source](https://example.org/a_b) and \eqref{eq:one}.

\begin{align}
a &= \color{red}{b} \label{eq:one} \tag{7} \\
c &= d
\end{align}

![a screenshot](attachment:shot.png)

![drawn](fig.png) ![](gone.png)
"""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path / "home"))


def png(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20), colour).save(buffer, "PNG")
    return buffer.getvalue()


def own_notebook():
    shot = {"shot.png": {"image/png": base64.b64encode(png("red")).decode()}}
    shown = new_code_cell("answer = 6 * 7", metadata={"tags": ["show-code"]})
    figure = new_code_cell("hidden = 1", outputs=[html_output(FIGURE.format("mine", "我的图 😀"))])
    return new_notebook(cells=[new_markdown_cell(TEXT, attachments=shot), shown, figure])


def set_own(folder, *formats):
    (folder / "fig.png").write_bytes(png("blue"))
    chapter = report.Chapter("08_mine", own_notebook(), folder)
    lab = paper_session()
    return report.write_documents([chapter], report.framed(lab), lab.profile, formats)


def test_what_a_chapter_holds_is_on_the_page_and_what_is_missing_is_named_once(tmp_path, capsys):
    page = set_own(tmp_path, "html", "tex").html.read_text()
    assert "我的 notebook 🎉" in page
    assert "我的图 😀" in page
    assert page.count("data:image/png;base64,") == 2  # the pasted screenshot and the file
    assert "answer = 6 * 7" in re.sub("<[^>]*>", "", page)
    assert "hidden = 1" not in page
    assert "ℝ" in page
    assert "newcommand" not in page
    assert re.search(r'<a href="#eq-eq-one">\(7\)</a>', page)
    assert 'id="eq-eq-one"' in page
    assert "https://example.org/a_b" in page
    assert capsys.readouterr().err == "cannot be set: 08_mine.ipynb, cell 1: the picture gone.png, which is not there\n"


def test_the_same_chapter_as_pdf(tmp_path, capsys):
    """With the machine's fonts; letters that none of them has are named, with their cells."""
    assert set_own(tmp_path, "pdf").pdf.read_bytes().startswith(b"%PDF-")
    said = capsys.readouterr().err.splitlines()
    assert all(line.startswith("cannot be set: 08_mine.ipynb, cell ") for line in said)
    main = (paths.build("paper") / "report.typ").read_text()
    named = {letter for line in said for letter in line if letter in "我的图🎉😀"}
    assert all((letter in main) != (letter in named) for letter in "我的🎉")


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("seed: int = 0\nepochs = 5", ("seed",)),
        ("profile = None\nseed = 0\ndata_dir = None\ndevice = None", ("profile", "seed", "data_dir", "device")),
        (None, ()),
    ],
)
def test_a_parameters_cell_may_be_typed_have_more_or_be_absent(tmp_path, source, names):
    path = tmp_path / "08_mine.ipynb"
    seen = tmp_path / "seen"
    cells = [new_code_cell(source, metadata={"tags": ["parameters"]})] if source else []
    said = "Lab.open().profile, globals().get('seed')"
    tell = f"from labreport import Lab\nprint({said}, file=open({str(seen)!r}, 'w'))"
    nbformat.write(new_notebook(cells=[*cells, new_code_cell(tell)]), path)
    assert parameters_of(path) == names
    report.build_report("smoke", seed=3, notebooks=[path], formats=["html"])
    assert seen.read_text() == ("smoke 3\n" if source else "smoke None\n")


def test_copies_and_unnamed_notebooks_are_no_chapters(tmp_path):
    names = ["01_one", "08_mine", "08_mine-Copy1", "Untitled", "Untitled1", "reported"]
    for name in names:
        nbformat.write(new_notebook(), tmp_path / f"{name}.ipynb")
    assert [path.stem for path in report.chapters_in(tmp_path)] == ["01_one", "08_mine"]


def test_an_unknown_format_is_one_sentence_before_anything_runs():
    with pytest.raises(ValueError, match=r"^format 'odt' does not exist; choose among pdf, html, docx, tex$"):
        report.build_report("smoke", formats=["pdf", "odt"])


def test_word_and_tex_hold_real_math_and_tables(tmp_path):
    docx = pytest.importorskip("docx")
    built = set_own(tmp_path, "docx", "tex").documents
    document = docx.Document(built["docx"])
    xml = document.element.xml
    assert xml.count("<m:oMath>") >= 2
    assert " PAGE " in document.sections[0].footer._element.xml  # a field that Word counts
    assert any("66.22" in cell.text or "baseline" in cell.text.lower() for t in document.tables for cell in t._cells)
    tex = built["tex"].read_text()
    assert r"\documentclass[conference]{IEEEtran}" in tex
    assert r"\begin{tabular}" in tex
    assert r"\mathbb{R}" in tex
    assert all((built["tex"].parent / name).exists() for name in re.findall(r"\{(images/[^}]*)\}", tex))


def test_the_tex_source_compiles(tmp_path):
    if not shutil.which("pdflatex"):
        pytest.skip("no TeX here")
    text = executed_text()
    built = set_all([text], paper_session(), ["tex"]).documents["tex"]
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", built.name], cwd=built.parent, check=False,
        capture_output=True, text=True, errors="replace",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]


def executed_text():
    text = "# One\n\nA formula $x_1 ≤ y$ and\n\n$$\\sum_i x_i$$\n\n| a | b |\n|---|---|\n| 1 | −2 |\n"
    output = new_output("display_data", {"text/html": FIGURE.format("one", "A picture, 5 ± 1 %"), "text/plain": ""})
    return new_notebook(cells=[new_markdown_cell(text), new_code_cell("", outputs=[output])])
