"""Which of the report's claims hold: each with its evidence, and the test or interval that decides it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from labreport.evidence import statistics
from labreport.evidence.statistics import measure
from labreport.evidence.tables import (
    NONE,
    RecordsByName,
    is_cifar10,
    p_value,
    percent,
    point_range,
    same_images,
    short_title,
    signed,
    span,
)
from labreport.records.record import RunRecord


@dataclass(frozen=True)
class Claim:
    """One claim of the report and what the records say of it: `holds`, `does not hold`, `undecided`, or a dash."""

    text: str
    place: str
    evidence: str
    decided_by: str
    verdict: str

    @property
    def sentence(self) -> str:
        """The finding as Markdown."""
        return f"{self.text} ({self.place}): **{self.verdict}**; {self.evidence}."


Judgement = tuple[str, str, str]  # evidence, decided by, verdict


def _decide(low: float, high: float, threshold: float = 0.0) -> str:
    """Whether the interval [low, high] lies above the threshold, below it, or around it."""
    if low > threshold:
        return "holds"
    return "does not hold" if high < threshold else "undecided"


def _points(result: statistics.PairedTest) -> str:
    """A difference in points with its interval."""
    return f"{signed(100 * result.difference)} points ({point_range(result)})"


def _wanted(verdict: str, seeds: float) -> str:
    """What would decide a claim that is open, for its evidence; nothing for others."""
    if verdict != "undecided":
        return ""
    if np.isinf(seeds):
        return "; more seeds would not decide it, since the images' own scatter is as large"
    return f"; about {seeds:.0f} seeds of each would decide it, were the difference as measured (80 % power)"


def _improves(before: Sequence[RunRecord], after: Sequence[RunRecord]) -> Judgement:
    if not same_images(before, after):
        return "the two were tested on different images", NONE, "undecided"
    result = statistics.paired_test(statistics.answers(after), statistics.answers(before))
    means = [
        f"{short_title(records)} {percent(measure(records, 'test accuracy').value)}" for records in (after, before)
    ]
    verdict = _decide(result.low, result.high)
    seeds = statistics.seeds_to_decide(statistics.answers(after), statistics.answers(before))
    evidence = f"{means[0]}, {means[1]}: {_points(result)}{_wanted(verdict, seeds)}"
    return evidence, f"paired test ({result.method}), p {p_value(result.p)}", verdict


def _reaches(level: float, quantity: str, but: str = "") -> Callable[[Sequence[RunRecord]], Judgement]:
    """Whether one training comes up to `level`: its interval covers that or lies above, as in the tables' verdicts."""

    def judge(records: Sequence[RunRecord]) -> Judgement:
        measured = measure(records, quantity)
        one = measured.one_training
        evidence = f"{quantity} {percent(measured.value)} ({span(measured.interval, 100)})"
        evidence += f", one more training {span(one, 100)} %" * (measured.n > 1) + but
        rule = f"95 % interval of one training ({one.method}) covers {percent(level)} or lies above"
        verdict = statistics.verdict(level, one.low, one.high)
        return evidence, rule, "does not hold" if verdict == "lower" else "holds"

    return judge


def _extreme_class(name: str, sign: int) -> Callable[[Sequence[RunRecord]], Judgement]:
    """Whether class `name` has the highest (sign 1) or lowest (−1) accuracy; all rivals tested at once (Bonferroni)."""

    def judge(records: Sequence[RunRecord]) -> Judgement:
        labels, right = records[0].predictions.labels, statistics.answers(records)
        rivals = {other: right[:, labels == k] for k, other in enumerate(records[0].data.classes)}
        own = rivals.pop(name)
        level = 1 - 0.05 / len(rivals)
        pairs = [(own, rival) if sign > 0 else (rival, own) for rival in rivals.values()]
        margins = [statistics.independent_difference(more, less, level) for more, less in pairs]
        closest = max(rivals, key=lambda other: sign * rivals[other].mean())
        evidence = f"{name} {percent(own.mean())}, closest rival {closest} {percent(rivals[closest].mean())}"
        verdict = _decide(min(margin.low for margin in margins), min(margin.high for margin in margins))
        return evidence, f"{len(rivals)} differences of classes ({margins[0].method}, Bonferroni)", verdict

    return judge


def _gain(threshold: float, more: bool, names: Sequence[str] | None = None) -> Callable[..., Judgement]:
    """Whether accuracy, on all or some classes, gained more (or, with `more` False, less) than `threshold`."""

    def judge(before: Sequence[RunRecord], after: Sequence[RunRecord]) -> Judgement:
        if not same_images(before, after):
            return "the two were tested on different images", NONE, "undecided"
        places = [k for k, name in enumerate(before[0].data.classes) if names is None or name in names]
        chosen = np.isin(before[0].predictions.labels, places)
        a, b = (statistics.answers(records)[:, chosen] for records in (after, before))
        result = statistics.paired_test(a, b)
        low, high = (result.low, result.high) if more else (-result.high, -result.low)
        verdict = _decide(low, high, threshold if more else -threshold)
        evidence = _points(result) + (" on their images" if names else "")
        evidence += _wanted(verdict, statistics.seeds_to_decide(a, b, threshold))
        return evidence, f"paired test ({result.method}) against {100 * threshold:g} points", verdict

    return judge


def _share(value: float) -> str:
    return f"{100 * value:.0f} %".replace("-", "−")


LATE_SHARE = 0.10  # of the whole rise: what the later epochs may add and still count as "less apparent"


def _little_gain_late(records: Sequence[RunRecord]) -> Judgement:
    """Whether the validation accuracy rises little after epoch 150, or after half of a shorter training."""
    epochs = min(len(record.history) for record in records)
    split = 150 if epochs >= 200 else epochs // 2
    if epochs < 8:
        return f"{epochs} epochs are too few to see it", NONE, "undecided"
    window = max(epochs // 20, 1)
    accuracies = np.array([[row.val_accuracy for row in record.history[:epochs]] for record in records])
    rise = accuracies[:, -window:].mean(axis=1) - accuracies[:, 0]
    late = accuracies[:, -window:].mean(axis=1) - accuracies[:, split - window : split].mean(axis=1)
    if rise.min() <= 0:
        return "the validation accuracy does not rise at all", NONE, "undecided"
    shares = late / rise
    if len(records) > 1:
        low, high, method = statistics.mean_interval(shares)
    else:
        end = accuracies[0, -window:].mean()
        half = 1.96 * np.sqrt(2 * end * (1 - end) / records[0].data.n_val) / rise[0]
        low, high, method = shares[0] - half, shares[0] + half, "normal over one run's validation images"
    after = f"after epoch {split}" + ("" if split == 150 else f" (half of {epochs} epochs)")
    evidence = (
        f"{after} the validation accuracy changes by {signed(100 * late.mean())} points, {_share(shares.mean())} of "
    )
    evidence += f"its rise since the first epoch{'; it falls, and is no flatter rise' if high < 0 else ''}"
    rule = f"95 % interval ({method}) of that share, {_share(low)} to {_share(high)}, against {_share(LATE_SHARE)}"
    verdict = _decide(-high, -low, -LATE_SHARE)
    if len(records) > 1:
        evidence += _wanted(verdict, statistics.seeds_for_mean(shares, LATE_SHARE))
    return evidence, rule, verdict


def _shrinks(resnet: Sequence[RunRecord], *others: Sequence[RunRecord]) -> Judgement:
    counts = [f"{short_title(records)} {records[0].parameters:,}" for records in (resnet, *others)]
    smaller = all(resnet[0].parameters < records[0].parameters for records in others)
    return f"parameters: {', '.join(counts)}", "a count", "holds" if smaller else "does not hold"


_ANY_DATA = "ResNet-18 makes the model smaller"  # the one claim that needs no particular images
_CLAIMS: tuple[tuple[str, str, tuple[str, ...], Callable[..., Judgement]], ...] = (
    ("Ships are the easiest class of the baseline", "II", ("baseline",), _extreme_class("ship", 1)),
    ("Cats are the hardest class of the baseline", "II", ("baseline",), _extreme_class("cat", -1)),
    ("Beyond epoch 150 the baseline gains little", "II", ("baseline",), _little_gain_late),
    (
        "The first optimization improves on the baseline",
        "III A, Table 1",
        ("baseline", "first_optimization"),
        _improves,
    ),
    (
        "That improvement is slight (a point in the table; 2 points or less)",
        "III A, Table 1",
        ("baseline", "first_optimization"),
        _gain(0.02, more=False),
    ),
    (
        "The first optimization improves cat and bird",
        "III A",
        ("baseline", "first_optimization"),
        _gain(0.0, more=True, names=("cat", "bird")),
    ),
    (
        "The first optimization brings automobile, truck and ship hardly any progress (2 points or less)",
        "III A",
        ("baseline", "first_optimization"),
        _gain(0.02, more=False, names=("automobile", "truck", "ship")),
    ),
    (
        "Larger kernels, dropout and Adam reach 78.08 %",
        "III B",
        ("fine_tuned",),
        _reaches(0.7808, "test accuracy"),
    ),
    ("ResNet-18 improves the accuracy", "III C", ("fine_tuned", "resnet18"), _improves),
    ("Pretrained, ResNet-18 improves the accuracy", "III C", ("fine_tuned", "resnet18_pretrained"), _improves),
    (_ANY_DATA, "III C", ("resnet18", "baseline", "first_optimization", "fine_tuned"), _shrinks),
    (
        "A deeper network reaches 89.59 %",
        "III C, second, [2]",
        ("deep_cnn",),
        _reaches(0.8959, "test accuracy", "; its length was chosen so that it would, so this is no evidence about [2]"),
    ),
    (
        "Features, a DNN and softmax reach 0.85 in validation",
        "III C, second, [3]",
        ("dnn_softmax",),
        _reaches(0.85, "validation accuracy"),
    ),
)


def claims(records_by_name: RecordsByName) -> list[Claim]:
    """Which of the report's claims hold, each with its evidence and the test or interval that decides it.

    A claim whose systems were not all run is undecided; on the synthetic stand-in no claim about CIFAR-10 is judged.
    """
    found = []
    for text, place, names, judge in _CLAIMS:
        absent = [name for name in names if not records_by_name.get(name)]
        if absent:
            found.append(Claim(text, place, f"not run: {', '.join(absent)}", NONE, "undecided"))
            continue
        lists = [records_by_name[name] for name in names]
        if text != _ANY_DATA and not all(is_cifar10(records) for records in lists):
            found.append(Claim(text, place, "a claim about CIFAR-10, which these runs did not see", NONE, NONE))
            continue
        found.append(Claim(text, place, *judge(*lists)))
    return found


def ranking(records_by_name: RecordsByName) -> str:
    """The systems that were run, by test accuracy, as a sentence."""
    present = [records for records in records_by_name.values() if records]
    ranked = sorted(present, key=lambda records: measure(records, "test accuracy").value, reverse=True)
    signs = ["", *(" > " if _surely_better(a, b) else " ≈ " for a, b in pairwise(ranked))]
    order = "".join(
        f"{sign}{short_title(records)} ({percent(measure(records, 'test accuracy').value)})"
        for sign, records in zip(signs, ranked, strict=True)
    )
    return f"By test accuracy (≈ where a paired test leaves the order open): {order}."


def _surely_better(a: Sequence[RunRecord], b: Sequence[RunRecord]) -> bool:
    return same_images(a, b) and statistics.paired_test(statistics.answers(a), statistics.answers(b)).low > 0


def claims_table(records_by_name: RecordsByName) -> pd.DataFrame:
    """The claims as a table."""
    rows = [(f"{c.text} ({c.place})", c.evidence, c.decided_by, c.verdict) for c in claims(records_by_name)]
    return pd.DataFrame(rows, columns=["The report claims", "Measured", "Decided by", "Verdict"])
