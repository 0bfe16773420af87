"""A notebook's parameters: the cell that sets them, and those that papermill gave it."""

from __future__ import annotations

import ast
import sys

PARAMETERS = ("profile", "seed", "data_dir", "device")
INJECTED = "# Parameters\n"  # how the cell begins that papermill inserts


def assigned_names(source: str) -> set[str]:
    """The names that a cell assigns to, magics apart.

    Raises:
        SyntaxError: it is no Python.
    """
    from IPython.core.inputtransformer2 import TransformerManager

    tree = ast.parse(TransformerManager().transform_cell(source))
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def refuse_misspelt() -> None:
    """Refuse parameters that papermill gave this kernel's notebook and no cell before sets: papermill only logs them.

    Raises:
        ValueError: there are such.
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    cells = shell.user_ns.get("In", []) if shell else []
    for place, cell in enumerate(cells):
        known = set().union(*map(_tried, cells[:place])) if cell.startswith(INJECTED) else set()
        if known and (unknown := assigned_names(cell) - known):
            raise ValueError(
                f"papermill was given {', '.join(sorted(unknown))}, which this notebook does not have; "
                f"its parameters are {', '.join(PARAMETERS)}"
            )


def _tried(source: str) -> set[str]:
    try:
        return assigned_names(source)
    except SyntaxError:  # of a cell that somebody mistyped
        return set()
