"""Imports point one way: a folder sees the floors below it, and no two of its files import each other."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import labreport

ROOT = Path(labreport.__file__).parent
FLOORS = (
    {"__init__", "_torchvision", "cpus", "digests", "files", "paths", "facts"},
    {"records", "networks"},
    {"images", "evidence"},
    {"training"},
    {"running", "bench"},
    {"lab"},
    {"derivations", "document"},
    {"__main__"},
)
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}


def imports(root: Path, path: Path) -> Iterator[Path]:
    """The package's files that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "labreport":
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.partition(".")[0] == "labreport"]
        else:
            continue
        for name in names:
            parts = name.split(".")[1:]
            while parts and not (root.joinpath(*parts).with_suffix(".py")).exists():
                parts.pop()  # a name inside a module
            yield root.joinpath(*parts).with_suffix(".py") if parts else root / "__init__.py"


def room(root: Path, path: Path) -> str:
    """The folder, or for a file of the package itself its name."""
    return path.relative_to(root).parts[0].removesuffix(".py")


def upward(root: Path) -> list[str]:
    """Imports of a higher or another room on the same floor, both files named."""
    found = []
    for path in sorted(root.rglob("*.py")):
        for target in imports(root, path):
            here, there = room(root, path), room(root, target)
            if here != there and there != "__init__" and FLOOR[there] >= FLOOR[here] and FLOOR[there] > 0:
                found.append(
                    f"{path.relative_to(root)} imports {target.relative_to(root)}, which is not on a lower floor"
                )
    return found


def test_every_folder_is_on_a_floor():
    assert {room(ROOT, path) for path in ROOT.rglob("*.py")} == set(FLOOR)


def test_no_file_imports_a_higher_floor():
    assert upward(ROOT) == []


def test_the_files_of_a_folder_do_not_import_each_other_in_a_circle():
    graph = {
        path: {p for p in imports(ROOT, path) if p.parent == path.parent and p != path} for path in ROOT.rglob("*.py")
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(str(path.relative_to(ROOT)) for path in error.args[1]))


def test_an_import_of_a_higher_floor_is_found(tmp_path):
    files = {"facts/a.py": "from labreport.lab import b", "lab/b.py": ""}
    files |= {"records/c.py": "import labreport.networks.d", "networks/d.py": "from labreport.facts import a"}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    up, across = upward(tmp_path)
    assert "facts/a.py" in up and "lab/b.py" in up
    assert "records/c.py" in across and "networks/d.py" in across
