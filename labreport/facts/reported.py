"""What a lab report states, read from a file that holds its numbers as it prints them.

`lab_report.toml` beside this file is the lab report's own; a reader's has the same form. Places are the report's own
headings ("II", "III A", "Table 1"). The lab report calls two sections "C"; they are named here "III C" (ResNet) and
"III C, second" (other methods).
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labreport.facts.recipes import RECIPES

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SPLITS = {"test": "test accuracy", "train": "training accuracy", "val": "validation accuracy"}
QUANTITIES = (
    *(f"{split} {kind}" for split in ("test", "training", "validation") for kind in ("accuracy", "loss")),
    "parameters",
    "size",
)


class ReportedError(ValueError):
    """A file of reported numbers cannot be used; the message names file, line and field."""


@dataclass(frozen=True)
class Statement:
    """One number of the report.

    `value` is a share in [0, 1] for accuracies, nats for losses, a count for parameters, MB for the size. `printed` is
    the report's own text. `tolerance` is half a unit of the last printed digit, and 0 for counts and for percentages
    with two decimals, which are all that 10,000 images give: what is within it of `value` prints the same.
    """

    quantity: str  # one of QUANTITIES
    value: float
    printed: str
    place: str
    tolerance: float = 0.0


@dataclass(frozen=True)
class ClassLine:
    """One line of a per-class listing, such as `Test Accuracy of dog: 67% (678/1000)`."""

    name: str
    percent: int  # as printed
    correct: int
    total: int

    @property
    def printed(self) -> str:
        return f"{self.percent}% ({self.correct}/{self.total})"


@dataclass(frozen=True)
class System:
    """What the report says of one system, under the name of its recipe here."""

    name: str
    statements: tuple[Statement, ...]
    per_class: tuple[ClassLine, ...] = ()

    def stated(self, quantity: str) -> tuple[Statement, ...]:
        """All that is stated of one quantity: none, one, or several that contradict each other."""
        return tuple(statement for statement in self.statements if statement.quantity == quantity)


@dataclass(frozen=True)
class TableRow:
    """One row of the report's table of methods. `split` is the images that its number was measured on."""

    label: str
    percent: float
    name: str  # of the recipe
    split: str  # test, train or val


@dataclass(frozen=True)
class LogLine:
    """One epoch of a training log: the printed loss and the validation accuracy in percent."""

    epoch: int
    loss: float
    percent: float


@dataclass(frozen=True)
class Report:
    """All numbers of one report."""

    title: str
    systems: dict[str, System]
    table: tuple[TableRow, ...]
    logs: dict[str, tuple[LogLine, ...]]  # by their place


# --- reading --------------------------------------------------------------------------------------------------------


def read_report(path: Path) -> Report:
    """The numbers in a TOML file; the networks that it names are recipes here.

    Raises:
        ReportedError: the file cannot be read, or something in it is not of the form.
    """
    try:
        text = path.read_text()
        raw = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ReportedError(f"{path}: cannot be read ({error})") from error
    except tomllib.TOMLDecodeError as error:
        raise ReportedError(f"{path}: not TOML: {error}") from error
    return _Reader(path, text).report(raw)


class _Reader:
    """Turns the file's entries into dataclasses, and says where one is not of the form."""

    def __init__(self, path: Path, text: str):
        self.path, self.lines = path, text.splitlines()

    def report(self, raw: dict[str, Any]) -> Report:
        self.fields(raw, "the file", {"title": str}, {"system": list, "table": list, "log": list})
        systems: dict[str, System] = {}
        for entry in self.entries(raw, "system"):
            for system in self.systems(entry):
                if system.name in systems:
                    raise self.error(entry, "network", f"{system.name!r} has an entry already; put both in one")
                systems[system.name] = system
        table = tuple(self.row(entry) for entry in self.entries(raw, "table"))
        if not systems and not table:
            raise ReportedError(f"{self.path}: states nothing; it needs a [[system]] or a [[table]]")
        logs = {entry["place"]: self.log(entry) for entry in self.entries(raw, "log")}
        return Report(raw["title"], systems, table, logs)

    def entries(self, raw: dict[str, Any], kind: str) -> list[dict[str, Any]]:
        forms: dict[str, tuple[dict, dict]] = {
            "system": ({"network": (str, list)}, {"states": list, "listing": str}),
            "table": ({"method": str, "printed": str, "network": str}, {"images": str}),
            "log": ({"place": str, "text": str}, {}),
        }
        for number, entry in enumerate(raw.get(kind, ()), start=1):
            self.fields(entry, f"{kind} {number}", *forms[kind])
        return raw.get(kind, [])

    def systems(self, entry: dict[str, Any]) -> list[System]:
        statements = []
        for number, state in enumerate(entry.get("states", ()), start=1):
            needed = {"quantity": str, "printed": str, "place": str}
            self.fields(state, f"state {number} of {entry['network']}", needed, {"tolerance": (int, float)})
            statements.append(self.statement(state))
        listing = tuple(self.class_line(line) for line in entry.get("listing", "").strip().splitlines())
        names = entry["network"] if isinstance(entry["network"], list) else [entry["network"]]
        return [System(self.network(entry, name), tuple(statements), listing) for name in names]

    def statement(self, state: dict[str, Any]) -> Statement:
        if state["quantity"] not in QUANTITIES:
            raise self.error(state, "quantity", f"{state['quantity']!r} is not one of {', '.join(QUANTITIES)}")
        value, tolerance = self.number(state, state["quantity"].rpartition(" ")[2])
        return Statement(state["quantity"], value, state["printed"], state["place"], state.get("tolerance", tolerance))

    def number(self, entry: dict[str, Any], kind: str) -> tuple[float, float]:
        """The value of what is printed, and half a unit of its last digit."""
        printed = entry["printed"]
        if counts := re.search(r"(\d+)\s*/\s*(\d+)", printed):
            correct, total = map(int, counts.groups())
            if not 0 < total >= correct:
                raise self.error(entry, "printed", f"{printed!r} counts {correct} of {total} images")
            return correct / total, 0.0
        found = re.search(r"\d[\d,]*(\.\d+)?(e[+-]?\d+)?", printed, re.IGNORECASE)
        if not found or found[2]:
            wrong = "is not written out; 3.7e-2 is 0.037" if found else "holds no number"
            raise self.error(entry, "printed", f"{printed!r} {wrong}")
        value = float(found[0].replace(",", ""))
        decimals = len(found[1] or ".") - 1
        if kind == "parameters":
            return value, 0.0
        scale = 0.01 if "%" in printed else 1.0
        if kind == "accuracy" and not 0 <= scale * value <= 1:
            raise self.error(entry, "printed", f"{printed!r} is no accuracy; write 78% or 0.78")
        all_digits = scale < 1 and decimals >= 2
        return round(scale * value, 12), 0.0 if all_digits else scale * 0.5 * 10.0**-decimals

    def class_line(self, line: str) -> ClassLine:
        found = re.search(r"(\w+)\s*:\s*(\d+)\s*%\s*\(\s*(\d+)\s*/\s*(\d+)\s*\)", line)
        if not found or found[1] not in CIFAR10_CLASSES:
            wanted = f"a line such as 'dog: 67% (678/1000)' with one of {', '.join(CIFAR10_CLASSES)}"
            raise ReportedError(f"{self.path}, line {self.place(line)}: listing: {line!r} is not {wanted}")
        if int(found[4]) == 0:
            raise ReportedError(f"{self.path}, line {self.place(line)}: listing: {line!r} is of no image")
        return ClassLine(found[1], int(found[2]), int(found[3]), int(found[4]))

    def row(self, entry: dict[str, Any]) -> TableRow:
        split = entry.get("images", "test")
        if split not in SPLITS:
            raise self.error(entry, "images", f"{split!r} is not one of {', '.join(SPLITS)}")
        value, _ = self.number(entry, "accuracy")
        percent = round(100 * value, 10)
        percent = int(percent) if percent.is_integer() else percent
        return TableRow(entry["method"], percent, self.network(entry, entry["network"]), split)

    def log(self, entry: dict[str, Any]) -> tuple[LogLine, ...]:
        lines = []
        for line in entry["text"].strip().splitlines():
            found = re.search(r"Epoch (\d+), Loss: ([\d.]+), Validation Accuracy: ([\d.]+)%", line)
            if not found:
                wanted = "a line such as 'Epoch 1, Loss: 0.0373, Validation Accuracy: 44.13%'"
                raise ReportedError(f"{self.path}, line {self.place(line)}: log: {line!r} is not {wanted}")
            lines.append(LogLine(int(found[1]), float(found[2]), float(found[3])))
        return tuple(lines)

    def network(self, entry: dict[str, Any], name: str) -> str:
        if name not in RECIPES:
            raise self.error(entry, "network", f"{name!r} is not one of {', '.join(RECIPES)}")
        return name

    def fields(self, entry: Any, where: str, needed: dict, allowed: dict) -> None:
        """Check that an entry has the fields that it needs, of their types, and no others."""
        if not isinstance(entry, dict):
            raise ReportedError(f"{self.path}: {where} is {entry!r}, and not a table of fields")
        for name in needed.keys() - entry.keys():
            raise self.error(entry, name, f"is missing in {where}")
        for name, value in entry.items():
            kind = (needed | allowed).get(name)
            if kind is None:
                known = ", ".join((*needed, *allowed))
                raise self.error(entry, name, f"is unknown in {where}; there are {known}")
            if not isinstance(value, kind):
                raise self.error(entry, name, f"has the wrong type in {where}: {value!r}")

    def error(self, entry: dict[str, Any], field: str, words: str) -> ReportedError:
        texts = [value for value in (entry.get(field), *entry.values()) if isinstance(value, str)]
        line = next((found for text in texts if (found := self.place(text))), 0)
        return ReportedError(f"{self.path}{f', line {line}' if line else ''}: field {field!r} {words}")

    def place(self, text: str) -> int:
        """The line on which a text stands, counted from 1; 0 where it cannot be found."""
        first = text.strip().splitlines()[0] if text.strip() else ""
        return next((n for n, line in enumerate(self.lines, start=1) if first and first in line), 0)


# --- the lab report -------------------------------------------------------------------------------------------------

LAB_REPORT = read_report(Path(__file__).with_name("lab_report.toml"))
SYSTEMS, TABLE_1 = LAB_REPORT.systems, LAB_REPORT.table
RESNET_LOG_TEXT, RESNET_LOG_APPENDIX = LAB_REPORT.logs.values()
