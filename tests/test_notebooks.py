"""What every notebook keeps to; nbmake runs them (`make test`)."""

import ast
import re

import nbformat
import pytest

from labreport import paths
from labreport.document.execute import PARAMETERS, parameters_of
from labreport.document.formats import TEMPLATES
from labreport.evidence.tables import errata_table

NAMES = (
    "01_convolution_and_cross_entropy",
    "02_baseline",
    "03_optimizations",
    "04_resnet",
    "05_fast_training",
    "06_comparison",
    "07_your_own",
    "reported",
)
LONGEST_CELL = 16  # lines


@pytest.fixture(params=NAMES)
def path(request):
    return paths.NOTEBOOKS / f"{request.param}.ipynb"


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_no_other_notebooks():
    assert sorted(path.stem for path in paths.NOTEBOOKS.glob("*.ipynb")) == list(NAMES)


def test_form(notebook):
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"


def test_stripped_of_outputs(notebook):
    assert [cell.outputs for cell in code_cells(notebook) if cell.outputs] == []
    assert {cell.execution_count for cell in code_cells(notebook)} == {None}


def test_parameters_cell(path, notebook):
    assert parameters_of(path) == PARAMETERS
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    values = {line.targets[0].id: ast.literal_eval(line.value) for line in ast.parse(cell.source).body}
    assert values == dict(zip(PARAMETERS, (None, 0, None, None), strict=True))


def test_one_title_and_it_comes_first(notebook):
    lines = [line for cell in notebook.cells if cell.cell_type == "markdown" for line in cell.source.splitlines()]
    assert [line for line in lines if line.startswith("# ")] == [lines[0]]


def test_code_cells_are_short(notebook):
    long = [cell.source for cell in code_cells(notebook) if len(cell.source.splitlines()) > LONGEST_CELL]
    assert long == []


def test_figures_are_numbered_by_the_notebook_s_place_in_the_report(path, notebook):
    """`reported` is the only chapter of its document."""
    (said,) = re.findall(r"Lab\.open\(.*chapter=(\d+)\)", "\n".join(cell.source for cell in code_cells(notebook)))
    assert int(said) == (1 if path.stem == "reported" else int(path.stem[:2]))


def test_what_the_text_refers_to_is_a_link(path, notebook):
    """An erratum to its row in this notebook, a paper to where it can be read, another chapter to its notebook."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    links = dict(re.findall(r"\[((?:\\.|[^\]])*)\]\(([^)\s]*)\)", text))
    unlinked = re.sub(r"\[(?:\\.|[^\]])*\]\([^)\s]*\)", "", text)
    assert re.findall(r"\bE\d+\b|\b(?:19|20)\d\d\)|[Rr]eference \[?\d|[Cc]hapter \d|[Nn]otebook \d", unlinked) == []
    errata = "" if path.stem.startswith("06") else path.stem[:2]
    shown = {f"#erratum-{name}" for name in [*errata_table(errata or None)["No."], "E20"]}
    papers = re.findall('href="(.*?)"', (TEMPLATES / "references.html").read_text())
    notebooks = {f"{name}.ipynb" for name in NAMES}
    assert [target for target in links.values() if target not in {*shown, *papers, *notebooks}] == []
