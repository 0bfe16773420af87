"""Records and the report's numbers as tables for reading: DataFrames of text, narrow enough for an A4 page.

`records` is the list of one recipe's runs, one a seed; `records_by_name` maps recipe names to such lists, in the order
of the rows, with an empty list for what was not run. Reported numbers are about CIFAR-10: of runs on the synthetic
stand-in no verdict is given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from labreport.evidence import statistics
from labreport.evidence.statistics import Interval, Measurement, measure
from labreport.facts.errata import ERRATA
from labreport.facts.recipes import RECIPES, Recipe
from labreport.facts.reported import (
    CIFAR10_CLASSES,
    RESNET_LOG_APPENDIX,
    RESNET_LOG_TEXT,
    SPLITS,
    SYSTEMS,
    TABLE_1,
    Statement,
    System,
)
from labreport.records.record import DataInfo, Epoch, RunRecord

NONE = "—"  # nothing stated, nothing measured, or nothing to compare
ONE_TRAINING = "One training"  # where one more lies with 95 % probability, of a single run as its images let expect
MARK = "‡"  # stands beside results whose training started from other weights than torchvision's
RecordsByName = Mapping[str, Sequence[RunRecord]]

_SHORT_TITLES = {row.name: row.label for row in TABLE_1} | {
    "resnet18_pretrained": "ResNet, pretrained",
    "dnn_softmax": "DNN, SoftMax",
}
_SETTINGS = {"lr": "learning rate", "tta": "test-time average", "step_size": "step size, epochs"}


# --- numbers as text ------------------------------------------------------------------------------------------------


def short_title(records: Sequence[RunRecord]) -> str:
    """What Table 1 calls this recipe, or the recipe's own title."""
    return _SHORT_TITLES.get(records[0].name, records[0].title) + mark(records)


def title(records: Sequence[RunRecord]) -> str:
    """The recipe's title, marked as `short_title` is."""
    return records[0].title + mark(records)


def mark(records: Sequence[RunRecord]) -> str:
    """` ‡` for results of other weights than torchvision's, which `weights_note` explains; else nothing."""
    return f" {MARK}" if any(record.weights_caveat for record in records) else ""


def weights_note(records: Iterable[RunRecord]) -> str:
    """What the mark ‡ means for these records, or nothing: `‡ other ImageNet weights: …`."""
    caveats = "; ".join(sorted({record.weights_caveat for record in records} - {""}))
    return f"{MARK} {caveats}" if caveats else ""


def duration(seconds: float) -> str:
    """`42 s`, `4.2 min` or `2.1 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def training_seconds(records: Sequence[RunRecord]) -> float:
    """How long a training took: the median over seeds, so that one beside other work does not count for much."""
    return float(np.median([record.seconds for record in records]))


def percent(share: float) -> str:
    """A share in [0, 1] as `78.08 %`."""
    return f"{100 * share:.2f} %"


def signed(points: float, digits: int = 2) -> str:
    """A change with its sign, a true minus: `+2.08`, `−4.74`, `0.00`."""
    text = f"{points:+.{digits}f}"
    return text[1:] if not float(text) else text.replace("-", "−")


def p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def spread(measurement: Measurement) -> str:
    """A share in percent as `67.32 ± 0.21 (3)`: mean, standard deviation over the seeds, and their number."""
    sd = f" ± {100 * measurement.sd:.2f}" if measurement.n > 1 else ""
    return f"{100 * measurement.value:.2f}{sd} ({measurement.n})"


def span(interval: Interval, scale: float = 1.0, digits: int = 2) -> str:
    """`66.80–67.84`, or a dash where there is no interval."""
    if np.isnan(interval.low):
        return NONE
    return f"{scale * interval.low:.{digits}f}–{scale * interval.high:.{digits}f}"


def point_range(result: statistics.PairedTest) -> str:
    """A difference's interval in points: `+1.20 to +3.40`."""
    return f"{signed(100 * result.low)} to {signed(100 * result.high)}"


def counted(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


def machine(record: RunRecord) -> str:
    """Device, threads and precision, of every stretch that had others."""
    environments = (stretch.environment for stretch in record.stretches)
    found = (f"{e.device}, {counted(e.threads, 'thread')}, {e.precision}" for e in environments)
    return "; ".join(dict.fromkeys(found))


def runs(records: Sequence[RunRecord]) -> str:
    """`1 run, seed 0`, `3 runs, seeds 0, 1, 2` or `10 runs, seeds 0 to 9`: the n that every result carries."""
    numbers = [record.seed for record in records]
    in_a_row = len(numbers) > 3 and numbers == list(range(numbers[0], numbers[-1] + 1))
    seeds = f"{numbers[0]} to {numbers[-1]}" if in_a_row else ", ".join(map(str, numbers))
    return f"{len(records)} runs, seeds {seeds}" if len(records) > 1 else f"1 run, seed {seeds}"


def accuracy_text(measured: Measurement) -> str:
    """`67.32 ± 0.21 % (95 % interval 66.80–67.84)`."""
    sd = f" ± {100 * measured.sd:.2f}" if measured.n > 1 else ""
    return f"{100 * measured.value:.2f}{sd} % (95 % interval {span(measured.interval, 100)})"


def is_cifar10(records: Sequence[RunRecord]) -> bool:
    """Whether all runs saw CIFAR-10's images, official or not: only then do reported numbers compare."""
    return all(r.data.source != "synthetic stand-in" and r.data.classes == CIFAR10_CLASSES for r in records)


def _verdict(records: Sequence[RunRecord], statement: Statement | None, interval: Interval) -> str:
    if statement is None or not is_cifar10(records) or np.isnan(interval.low):
        return NONE
    return statistics.verdict(statement.value, interval.low, interval.high, statement.tolerance)


def distinct(statements: Sequence[Statement]) -> list[Statement]:
    """The statements without those that only round another one."""

    def rounds_another(s: Statement) -> bool:
        return any(o.tolerance < s.tolerance and abs(o.value - s.value) <= s.tolerance for o in statements)

    return [statement for statement in statements if not rounds_another(statement)]


def data_table(info: DataInfo) -> pd.DataFrame:
    """Where a run's images come from, how many there are, and their classes."""
    rows = [
        ("Source", info.source),
        ("Training, validation, test images", f"{info.n_train:,}, {info.n_val:,}, {info.n_test:,}"),
        ("Classes", ", ".join(info.classes)),
        ("Fingerprint (sha256 of pixels, labels and split)", info.fingerprint),
    ]
    return pd.DataFrame(rows, columns=["What", "Value"])


# --- one system -----------------------------------------------------------------------------------------------------


def recipe_table(recipe: Recipe) -> pd.DataFrame:
    """A recipe's settings that differ from the plain default or have a source, and where each comes from."""
    rows = []
    for field in dataclasses.fields(recipe):
        value = getattr(recipe, field.name)
        sourced = field.name in recipe.stated or field.name in recipe.why
        if field.name == "name" or not field.metadata.get("identity", True) or (value == field.default and not sourced):
            continue
        source = "stated by the report" if field.name in recipe.stated else recipe.why.get(field.name, "chosen")
        rows.append((_SETTINGS.get(field.name, field.name.replace("_", " ")), _setting(value), source))
    return pd.DataFrame(rows, columns=["Setting", "Value", "Source"])


def _setting(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def settings_table(records_by_name: RecordsByName) -> pd.DataFrame:
    """The settings in which trained recipes differ, and their numbers of parameters, a column each."""
    firsts = {name: records[0] for name, records in records_by_name.items() if records}
    rows = []
    for field in dataclasses.fields(Recipe):
        values = [_setting(record.recipe.get(field.name, field.default)) for record in firsts.values()]
        if field.name != "name" and len(set(values)) > 1:
            rows.append((_SETTINGS.get(field.name, field.name.replace("_", " ")), *values))
    rows.append(("parameters", *(f"{record.parameters:,}" for record in firsts.values())))
    return pd.DataFrame(rows, columns=["Setting", *firsts])


def history_table(history: Sequence[Epoch], rows: int = 20) -> pd.DataFrame:
    """A training's history, thinned evenly to at most `rows` epochs with the first and the last."""
    n = len(history)
    shown = [history[i] for i in sorted(set(np.linspace(0, n - 1, min(rows, n)).round().astype(int)))]
    return pd.DataFrame(
        {
            "Epoch": [str(row.epoch) for row in shown],
            "Rate at start": [f"{row.learning_rate:.3g}" for row in shown],
            "Train loss": [f"{row.train_loss:.4f}" for row in shown],
            "Train accuracy": [percent(row.train_accuracy) for row in shown],
            "Val. loss": [NONE if row.val_loss is None else f"{row.val_loss:.4f}" for row in shown],
            "Val. accuracy": [NONE if row.val_accuracy is None else percent(row.val_accuracy) for row in shown],
            "Time": [duration(row.seconds) for row in shown],
        }
    )


def summary_table(records: Sequence[RunRecord], reported: System | None = None) -> pd.DataFrame:
    """Everything that the report states of a system, beside what was measured; a line for each contradicting number."""
    quantities = ["test loss", "test accuracy", "parameters", "size"]
    if reported is not None:
        quantities[2:2] = [
            quantity
            for quantity in ("training accuracy", "validation accuracy", "training loss", "validation loss")
            if reported.stated(quantity)
        ]
    rows = []
    for quantity in quantities:
        measured = measure(records, quantity)
        for statement in distinct(reported.stated(quantity)) if reported else []:
            # A count of ours from the report's code is no statement of its own that a measurement could confirm.
            counted = statement.place.startswith("counted")
            verdict = NONE if counted else _verdict(records, statement, measured.one_training)
            judged = [NONE if verdict == NONE else _interval(quantity, measured.one_training), verdict]
            rows.append((quantity, statement.printed, statement.place, *_texts(records, quantity, measured), *judged))
        if not rows or rows[-1][0] != quantity:
            rows.append((quantity, NONE, NONE, *_texts(records, quantity, measured), NONE, NONE))
    columns = ["Quantity", "Reported", "Place", "Measured", "95 % interval", ONE_TRAINING, "Verdict"]
    frame = pd.DataFrame(rows, columns=columns)
    frame["Quantity"] = frame["Quantity"].str.capitalize()
    return frame


def _texts(records: Sequence[RunRecord], quantity: str, measured: Measurement) -> tuple[str, str]:
    """A measurement and its interval, as its kind is written."""
    within = _interval(quantity, measured.interval)
    if quantity == "parameters":
        return f"{measured.value:,.0f}", within
    if quantity == "size":
        return f"{measured.value:.2f} MiB", within
    seeds = f" (n = {measured.n})"
    if quantity.endswith("loss"):
        sd = f" ± {measured.sd:.4f}{seeds}" if measured.n > 1 else ""
        return f"{measured.value:.4f}{sd}", within
    if measured.n > 1:
        text = f"{100 * measured.value:.2f} ± {100 * measured.sd:.2f} %{seeds}"
    elif quantity == "test accuracy":
        correct = records[0].predictions.correct
        text = f"{percent(measured.value)} ({correct.sum()}/{correct.size})"
    else:
        text = percent(measured.value)
    return text, within


def _interval(quantity: str, interval: Interval) -> str:
    if quantity in ("parameters", "size"):
        return NONE  # a count
    return span(interval, digits=4) if quantity.endswith("loss") else f"{span(interval, 100)} %"


def per_class_table(records: Sequence[RunRecord], reported: System | None = None) -> pd.DataFrame:
    """Each class's accuracy in the report's form, pooled over the seeds, with the interval of the seeds' mean.

    Where the report lists it, also with the interval of one training, which the verdict is by.
    """
    lines = {line.name: line for line in reported.per_class} if reported else {}
    correct, total = class_counts(records)
    rows = []
    for k, name in enumerate(records[0].data.classes):
        right = correct[:, k].tolist(), int(total[k])
        interval, one = statistics.accuracy_interval(*right), statistics.next_accuracy(*right)
        hits, images = int(correct[:, k].sum()), int(total[k]) * len(records)
        line = lines.get(name) if is_cifar10(records) else None
        measured = (
            f"{100 * hits / images:.0f}% ({hits}/{images})",
            f"{span(interval, 100, 1)} %",
        )  # in the report's form
        judged = (NONE, NONE)
        if line:
            judged = f"{span(one, 100, 1)} %", statistics.verdict(line.correct / line.total, one.low, one.high)
        rows.append((name, line.printed if line else NONE, *measured, *judged))
    return pd.DataFrame(rows, columns=["Class", "Reported", "Measured", "95 % interval", ONE_TRAINING, "Verdict"])


def without_empty(frame: pd.DataFrame) -> pd.DataFrame:
    """The table without columns of dashes only: what the report states where it states nothing."""
    return frame[[name for name in frame.columns if set(frame[name]) != {NONE}]]


def listing_table(listing: System, candidates: RecordsByName) -> pd.DataFrame:
    """A listing of the report beside networks that it may be of: test loss and classes, by one training's intervals."""
    (loss,) = listing.stated("test loss")
    frame = pd.DataFrame({"": ["loss", *(line.name for line in listing.per_class)]})
    frame["The report"] = [loss.printed, *(f"{100 * line.correct / line.total:.1f} %" for line in listing.per_class)]
    for records in candidates.values():
        measured = measure(records, "test loss")
        classes = per_class_table(records, listing)
        one = measured.one_training
        frame[f"{short_title(records)}, 95 %"] = [span(one, digits=3), *classes[ONE_TRAINING]]
        frame[f"{short_title(records)} is"] = [_verdict(records, loss, one), *classes["Verdict"]]
    return frame


def class_counts(records: Sequence[RunRecord]) -> tuple[np.ndarray, np.ndarray]:
    """Right answers (seeds, classes) and test images (classes,) of every class, for runs on the same test images."""
    statistics.answers(records)  # refuses an empty list and mixed test sets
    n = len(records[0].data.classes)
    runs = [statistics.per_class_accuracy(r.predictions.labels, r.predictions.predicted, n) for r in records]
    return np.stack([correct for correct, _ in runs]), runs[0][1]


def resnet_log_table(record: RunRecord | None = None) -> pd.DataFrame:
    """The report's ResNet log, both transcripts; the least mean loss that its accuracies allow; a run's own history."""
    rows = []
    for text, appendix in zip(RESNET_LOG_TEXT, RESNET_LOG_APPENDIX, strict=True):
        least = statistics.least_cross_entropy(max(text.percent, appendix.percent) / 100)
        losses, accuracies = f"{text.loss:.4f}", f"{text.percent:.2f} %"
        losses += f" / {appendix.loss:.4f}" if appendix.loss != text.loss else ""
        accuracies += f" / {appendix.percent:.2f} %" if appendix.percent != text.percent else ""
        rows.append((str(text.epoch), losses, accuracies, f"{least:.3f}"))
    frame = pd.DataFrame(rows, columns=["Epoch", "Printed loss", "Printed val. accuracy", "Least mean loss"])
    if record is not None:
        shown = [*record.history[: len(frame)], *[None] * (len(frame) - len(record.history))]
        frame["Measured val. loss"] = [f"{row.val_loss:.4f}" if row else NONE for row in shown]
        reached = [row.val_accuracy if row else None for row in shown]
        frame["Measured val. accuracy"] = [NONE if share is None else percent(share) for share in reached]
    return frame


# --- all systems ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ComparisonRow:
    """One row of the comparison. `printed` is the report's percentage, with its exact value where the text has one."""

    label: str
    name: str  # of the recipe
    quantity: str
    printed: str = NONE
    statement: Statement | None = None


def comparison_rows(records_by_name: RecordsByName) -> list[ComparisonRow]:
    """Table 1's rows, a row more for each number that contradicts one of them, and a row for every other recipe."""
    rows = []
    for row in TABLE_1:
        quantity = SPLITS[row.split]
        label = row.label if row.split == "test" else f"{row.label} ({quantity.split()[0]})"
        label = "ResNet (random weights)" if row.name == "resnet18" else label
        statements = distinct(SYSTEMS[row.name].stated(quantity))
        for statement in sorted(statements, key=lambda s: abs(s.value - row.percent / 100)):
            agrees = abs(statement.value - row.percent / 100) <= 0.005
            exact = f" ({100 * statement.value:.2f})" if statement.tolerance == 0 else ""
            printed = f"{row.percent if agrees else int(100 * statement.value)}{exact}"
            named = label if agrees else f"{label}, section {statement.place}"
            rows.append(ComparisonRow(named, row.name, quantity, printed, statement))
        if row.name == "resnet18":
            pretrained = dataclasses.replace(rows[-1], label="ResNet (pretrained)", name="resnet18_pretrained")
            rows.append(pretrained)
    rows.append(ComparisonRow("DNN, SoftMax (test)", "dnn_softmax", "test accuracy"))
    known = {row.name for row in rows}
    others = [name for name in records_by_name if name not in known]

    def own_title(name: str) -> str:
        if records_by_name[name]:
            return records_by_name[name][0].title
        return RECIPES[name].title if name in RECIPES else name

    rows += [ComparisonRow(own_title(name), name, "test accuracy") for name in others]
    return [dataclasses.replace(row, label=row.label + mark(records_by_name.get(row.name, ()))) for row in rows]


def table1(records_by_name: RecordsByName, earlier: Container[str] = ()) -> pd.DataFrame:
    """The report's Table 1 beside the measured one.

    Percentages are of the images that the row names, else of the test set; measured is mean ± sd over (n) seeds, with
    the mean's interval and one training's, which the verdict is by. The recipes in `earlier`, which other code
    measured, are marked with †.
    """
    rows = []
    for row in comparison_rows(records_by_name):
        records = records_by_name.get(row.name, ())
        if not records:
            rows.append((row.label, row.printed, "not run", *[NONE] * 7))
            continue
        measured = measure(records, row.quantity)
        rows.append(
            (
                row.label + " †" * (row.name in earlier),
                row.printed,
                spread(measured),
                span(measured.interval, 100),
                span(measured.one_training, 100),
                _verdict(records, row.statement, measured.one_training),
                f"{records[0].parameters:,}",
                f"{records[0].size_bytes / 2**20:.2f}",
                f"{records[0].forward_flops / 1e6:.1f}",
                duration(training_seconds(records)),
            )
        )
    columns = [
        "Method",
        "Reported, %",
        "Measured, %",
        "95 % interval",
        ONE_TRAINING,
        "Verdict",
        "Parameters",
        "MiB",
        "MFLOPs",
        "Training",
    ]
    return pd.DataFrame(rows, columns=columns)


def profiles_table(own: RecordsByName, reference: RecordsByName) -> pd.DataFrame:
    """Table 1's numbers, this profile's and the reference run's side by side."""

    def cell(records_by_name: RecordsByName, row: ComparisonRow) -> str:
        records = records_by_name.get(row.name, ())
        return spread(measure(records, row.quantity)) if records else "not run"

    rows = comparison_rows({**reference, **own})
    return pd.DataFrame(
        {
            "Method": [row.label for row in rows],
            "Reported, %": [row.printed for row in rows],
            "This run, %": [cell(own, row) for row in rows],
            "Reference run, %": [cell(reference, row) for row in rows],
        }
    )


def paired_tests(records_by_name: RecordsByName) -> pd.DataFrame:
    """Each system against the one before it, on the same test images; p also adjusted for the number of tests."""
    present = [records for records in records_by_name.values() if records]
    pairs = [(a, b) for a, b in pairwise(present) if same_images(a, b)]
    results = [statistics.paired_test(statistics.answers(b), statistics.answers(a)) for a, b in pairs]
    adjusted = statistics.holm([result.p for result in results])
    return pd.DataFrame(
        {
            "Comparison": [f"{short_title(b)} − {short_title(a)}" for a, b in pairs],
            "Points": [signed(100 * result.difference) for result in results],
            "95 % interval": [point_range(result) for result in results],
            "p": [p_value(result.p) for result in results],
            "p (Holm)": [p_value(p) for p in adjusted],
            "Test": [result.method for result in results],
        }
    )


def same_images(a: Sequence[RunRecord], b: Sequence[RunRecord]) -> bool:
    """Whether both systems were tested on the same images, so that a paired test is one."""
    return a[0].data.fingerprint == b[0].data.fingerprint and a[0].data.n_test == b[0].data.n_test


def class_changes(records_by_name: RecordsByName) -> pd.DataFrame:
    """Accuracy of every class and system in percent, mean over seeds, with the change in points from the one before."""
    present = [records for records in records_by_name.values() if records]
    frame, before = pd.DataFrame({"Class": []}), None
    for records in present:
        correct, total = class_counts(records)
        shares = 100 * correct.mean(axis=0) / total
        changes = (
            [f" ({signed(change, 1)})" for change in shares - before] if before is not None else [""] * len(shares)
        )
        if before is None:
            frame = pd.DataFrame({"Class": records[0].data.classes})
        frame[short_title(records)] = [f"{share:.1f}{change}" for share, change in zip(shares, changes, strict=True)]
        before = shares
    return frame


def calibration_table(records_by_name: RecordsByName) -> pd.DataFrame:
    """How far confidence is from accuracy on the test set; means over seeds, in percent."""
    rows = []
    for records in (records for records in records_by_name.values() if records):
        confidence, accuracy, error = statistics.calibration(records)
        difference = signed(100 * (confidence - accuracy))
        rows.append((short_title(records), percent(accuracy), percent(confidence), difference, percent(error)))
    return pd.DataFrame(
        rows, columns=["Method", "Accuracy", "Mean confidence", "Difference, points", "Calibration error"]
    )


def cost_table(records_by_name: RecordsByName) -> pd.DataFrame:
    """What each training cost: median time, floating-point operations, and every machine that a seed ran on."""
    rows = []
    for records in (records for records in records_by_name.values() if records):
        seconds = training_seconds(records)
        flops = records[0].train_flops
        machines = dict.fromkeys(machine(record) for record in records)
        rows.append(
            (
                short_title(records),
                spread(measure(records, "test accuracy")),
                duration(seconds),
                f"{flops / 1e15:.4f}",
                f"{flops / seconds / 1e9:.0f}",
                "; ".join(machines),
            )
        )
    columns = ["Method", "Test accuracy, %", "Training", "PFLOP", "GFLOP/s", "On"]
    return pd.DataFrame(rows, columns=columns)


def ablation_table(records_by_name: RecordsByName) -> pd.DataFrame:
    """Variants of a recipe against the recipe itself, which comes first: test accuracy, and what a training costs."""
    whole, *variants = (records for records in records_by_name.values() if records)
    results = [statistics.paired_test(statistics.answers(v), statistics.answers(whole)) for v in variants]
    adjusted = statistics.holm([result.p for result in results])
    seconds = [training_seconds(records) for records in (whole, *variants)]
    return pd.DataFrame(
        {
            "Recipe": [title(records) for records in (whole, *variants)],
            "Test accuracy, %": [spread(measure(records, "test accuracy")) for records in (whole, *variants)],
            "Points": [NONE, *(signed(100 * result.difference) for result in results)],
            "95 % interval": [NONE, *(point_range(result) for result in results)],
            "p (Holm)": [NONE, *(p_value(p) for p in adjusted)],
            "Training": [duration(s) for s in seconds],
            "PFLOP": [f"{records[0].train_flops / 1e15:.3f}" for records in (whole, *variants)],
        }
    )


def pixels(records: Sequence[RunRecord]) -> int:
    """How many pixels a side the images have that the recipe's ResNet-18 sees, by its name."""
    settings = records[0].recipe
    name = settings.get("features_from") or settings["model"]
    return int(name.rpartition("_at_")[2]) if "_at_" in name else 32


def upscaled_table(records_by_name: RecordsByName) -> pd.DataFrame:
    """ResNet-18 on images of several sizes: test accuracy, and what one image and a training cost."""
    rows = [
        (
            title(records),
            str(pixels(records)),
            spread(measured := measure(records, "test accuracy")),
            span(measured.interval, 100),
            f"{records[0].forward_flops / 1e6:,.0f}",
            duration(training_seconds(records)),
        )
        for records in records_by_name.values()
        if records
    ]
    columns = ["Method", "Pixels a side", "Test accuracy, %", "95 % interval", "MFLOPs an image", "Training"]
    return pd.DataFrame(rows, columns=columns)


def errata_table(chapter: str | None = None) -> pd.DataFrame:
    """The report's slips: those of one chapter (`"01"` to `"06"`), or all."""
    shown = [erratum for erratum in ERRATA if chapter in (None, erratum.chapter)]
    return pd.DataFrame(
        [(e.id, e.place, e.says, e.correct) for e in shown], columns=["No.", "Place", "The report says", "Correct"]
    )
