"""Whether a report's numbers can be: beside each other, and beside what the reference run measured.

Three questions: does the report contradict itself, could its network have measured that number, and which network does
a listing of classes fit?
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from labreport.evidence.statistics import Interval, Measurement, answers, least_cross_entropy, measure, next_run
from labreport.evidence.tables import NONE, RecordsByName, class_counts, short_title, span, spread
from labreport.facts.recipes import RECIPES
from labreport.facts.reported import SPLITS, ClassLine, Report, Statement, System


@dataclass(frozen=True)
class Contradiction:
    """Two things of a report that cannot both be right; `where` names the system."""

    where: str
    says: str
    but: str


def contradictions(report: Report) -> list[Contradiction]:
    """All that can be found without any measurement: sums, roundings, numbers stated twice, impossible losses."""
    found = [c for system in report.systems.values() for c in _within(system)]
    for row in report.table:
        stated = report.systems[row.name].stated(SPLITS[row.split]) if row.name in report.systems else ()
        texts = [s for s in stated if "table" not in s.place.lower()]
        if texts and all(abs(s.value - row.percent / 100) > 0.005 + s.tolerance for s in texts):
            others = "; ".join(f"{s.printed} ({s.place})" for s in texts)
            found.append(Contradiction(row.label, f"{row.percent:g}% in the table of methods", others))
    return found


def contradictions_table(found: Sequence[Contradiction]) -> pd.DataFrame:
    """`contradictions` for reading."""
    return pd.DataFrame([(c.where, c.says, c.but) for c in found], columns=["System", "The report says", "But"])


def _within(system: System) -> Iterator[Contradiction]:
    for a, b in combinations(system.statements, 2):
        if a.quantity == b.quantity and abs(a.value - b.value) > a.tolerance + b.tolerance + 1e-12:
            yield Contradiction(system.name, f"{a.quantity} {a.printed} ({a.place})", f"{b.printed} ({b.place})")
    for split in ("test", "training", "validation"):
        losses, accuracies = system.stated(f"{split} loss"), system.stated(f"{split} accuracy")
        for loss in losses:
            for accuracy in accuracies:
                least = float(least_cross_entropy(min(accuracy.value + accuracy.tolerance, 1.0)))
                if loss.value + loss.tolerance < least:
                    but = f"with {accuracy.printed} right a mean cross-entropy is at least {least:.3f}"
                    yield Contradiction(system.name, f"{loss.quantity} {loss.printed}", but)
    if system.per_class:
        yield from _listing(system)


def _listing(system: System) -> Iterator[Contradiction]:
    lines = system.per_class
    for line in lines:
        if not line.correct <= line.total:
            yield Contradiction(system.name, line.printed, "more right answers than images")
        elif abs(line.percent - 100 * line.correct / line.total) >= 1:
            yield Contradiction(system.name, f"{line.name}: {line.printed}", f"{100 * line.correct / line.total:.1f} %")
    names = [line.name for line in lines]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        yield Contradiction(system.name, "a listing of classes", f"{', '.join(repeated)} stands in it twice")
    correct, total = sum(line.correct for line in lines), sum(line.total for line in lines)
    for stated in system.stated("test accuracy"):
        if len(lines) == 10 and abs(correct / total - stated.value) > stated.tolerance + 1e-12:
            says = f"test accuracy {stated.printed} ({stated.place})"
            yield Contradiction(system.name, says, f"its classes add up to {correct}/{total}")


def rounding(lines: Sequence[ClassLine]) -> str:
    """How a listing turns counts into whole percentages: `rounded`, `cut off`, `either` or `neither`."""
    shares = [(line.percent, 100 * line.correct / line.total) for line in lines]
    near = all(printed == math.floor(share + 0.5) for printed, share in shares)
    below = all(printed == math.floor(share) for printed, share in shares)
    return {(True, True): "either", (True, False): "rounded", (False, True): "cut off"}.get((near, below), "neither")


# --- beside what was measured ---------------------------------------------------------------------------------------


def plausible(statement: Statement, interval: Interval) -> str:
    """Whether one training of this network could have measured that: `plausible`, `too high` or `too low`."""
    if np.isnan(interval.low):
        return NONE
    if statement.value - statement.tolerance > interval.high:
        return "too high"
    return "too low" if statement.value + statement.tolerance < interval.low else "plausible"


@dataclass(frozen=True)
class Beside:
    """A stated accuracy or loss beside the reference run of its network; `interval` is one more training's."""

    title: str
    statement: Statement
    measured: Measurement | None
    interval: Interval
    verdict: str


def beside(report: Report, records_by_name: RecordsByName) -> list[Beside]:
    """Every stated accuracy and loss with what was measured of its network, where it was."""
    found = []
    for system in report.systems.values():
        records = records_by_name.get(system.name, ())
        for statement in system.statements:
            if statement.quantity in ("parameters", "size"):
                continue
            if not records or (statement.quantity.startswith("validation") and records[0].val_score is None):
                title = short_title(records) if records else RECIPES[system.name].title
                found.append(Beside(title, statement, None, Interval(np.nan, np.nan, "none"), NONE))
                continue
            interval = next_run([measure([record], statement.quantity).value for record in records])
            measured = measure(records, statement.quantity)
            found.append(Beside(short_title(records), statement, measured, interval, plausible(statement, interval)))
    return found


def plausibility_table(found: Sequence[Beside]) -> pd.DataFrame:
    """`beside` for reading: accuracies in percent, losses in nats."""
    rows = []
    for one in found:
        said, measured = one.statement, one.measured
        text, within = "not run", NONE
        if measured:
            loss = said.quantity.endswith("loss")
            text = f"{measured.value:.4f} ({measured.n})" if loss else spread(measured)
            within = span(one.interval, digits=4) if loss else span(one.interval, 100)
        rows.append((one.title, said.quantity, said.printed, said.place, text, within, one.verdict))
    columns = ["System", "Quantity", "Reported", "Place", "Measured", "One more training, 95 %", "Verdict"]
    return pd.DataFrame(rows, columns=columns)


@dataclass(frozen=True)
class Fit:
    """How well a listing of classes fits a network: `within` of its classes lie where one more training's would."""

    name: str
    title: str
    n: int
    within: int
    distance: float  # root mean square over the classes, in deviations of one more training
    overall: str  # whether the sum is plausible


def fits(listing: Sequence[ClassLine], records_by_name: RecordsByName) -> list[Fit]:
    """The networks by how well the listing fits them: first those whose sum it could be; of two seeds or more."""
    found = []
    for name, records in records_by_name.items():
        if len(records) < 2:
            continue
        correct, total = class_counts(records)
        shares = correct / total
        places = [records[0].data.classes.index(line.name) for line in listing]
        stated = np.array([line.correct / line.total for line in listing])
        intervals = [next_run(shares[:, k].tolist()) for k in places]
        within = sum(low <= share <= high for share, (low, high, _) in zip(stated, intervals, strict=True))
        # A class's deviation over few seeds can be small by chance: all classes' together stand for each.
        deviation = np.sqrt(shares.var(axis=0, ddof=1).mean() * (1 + 1 / len(records)))
        distance = float(np.sqrt(np.mean(((stated - shares.mean(axis=0)[places]) / deviation) ** 2)))
        overall = next_run(answers(records).mean(axis=1).tolist())
        sum_stated = sum(line.correct for line in listing) / sum(line.total for line in listing)
        verdict = plausible(Statement("test accuracy", sum_stated, "", ""), overall)
        found.append(Fit(name, short_title(records), len(records), within, distance, verdict))
    return sorted(found, key=lambda fit: (fit.overall != "plausible", fit.distance))


def fits_table(found: Sequence[Fit], classes: int) -> pd.DataFrame:
    """`fits` for reading."""
    rows = [(fit.title, str(fit.n), f"{fit.within} of {classes}", f"{fit.distance:.1f}", fit.overall) for fit in found]
    return pd.DataFrame(rows, columns=["Network", "Seeds", "Classes that fit", "Distance, deviations", "The sum is"])
