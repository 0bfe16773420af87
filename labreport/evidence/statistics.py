"""From predictions to accuracy, confusion, calibration, intervals and paired tests: arrays or records in, numbers out.

Several seeds of one recipe are several draws of the same training, measured on the same test images. Student's t
interval over seeds says where the mean of all seeds lies, on these images; his prediction says where one more training
lies, which is what a number that somebody else's one training gave is judged by. A single run has only the interval of
its images (Wilson's, for an accuracy). `Interval.method` says what a reader is looking at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy  # whose `stats` is loaded, in a second, when it is first asked: a training never does
from numpy.typing import ArrayLike

from labreport.records.record import RunRecord


class Interval(NamedTuple):
    """A confidence interval and how it was made."""

    low: float
    high: float
    method: str


class PairedTest(NamedTuple):
    """Accuracy of A minus accuracy of B on the same images, a share in [−1, 1]; its 95 % interval; two-sided p."""

    difference: float
    low: float
    high: float
    p: float
    method: str


class Calibration(NamedTuple):
    """Mean confidence, accuracy and expected calibration error on the test set, shares; means over seeds."""

    confidence: float
    accuracy: float
    error: float


class Measurement(NamedTuple):
    """A quantity's mean over `n` seeds, their standard deviation (nan for one), and two 95 % intervals.

    `interval` is the mean's, `one_training` that of one more seed's value; of a single run both are its images'.
    """

    value: float
    sd: float
    n: int
    interval: Interval
    one_training: Interval


@dataclass(frozen=True, eq=False)
class ReliabilityBins:
    """Answers by confidence, in B equal bins of [0, 1].

    edges: (B + 1,). count: (B,) images. confidence, accuracy: (B,) means of the bin, nan where it is empty.
    """

    edges: np.ndarray
    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


# --- accuracy and confusion -----------------------------------------------------------------------------------------


def accuracy(labels: ArrayLike, predicted: ArrayLike) -> float:
    """Share of right answers in [0, 1]; labels, predicted: (N,)."""
    labels, predicted = _same_length(labels, predicted)
    return float((labels == predicted).mean())


def per_class_accuracy(labels: ArrayLike, predicted: ArrayLike, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Right answers and images of each true class, both (num_classes,) int."""
    matrix = confusion(labels, predicted, num_classes)
    return matrix.diagonal(), matrix.sum(axis=1)


def confusion(labels: ArrayLike, predicted: ArrayLike, num_classes: int) -> np.ndarray:
    """(num_classes, num_classes) int: images of true class i (row) that were called j (column)."""
    from sklearn.metrics import confusion_matrix

    labels, predicted = _same_length(labels, predicted)
    return confusion_matrix(labels, predicted, labels=np.arange(num_classes))


def _same_length(a: ArrayLike, b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or a.size == 0:
        raise ValueError(f"shapes {a.shape} and {b.shape}: give one value per image in both, for at least one image")
    return a, b


def least_cross_entropy(accuracy: ArrayLike) -> np.ndarray:
    """The least mean cross-entropy (nats) that an accuracy in [0, 1] allows: (1 − accuracy) ln 2.

    A wrong answer has at least the true class's probability, which is therefore at most 1/2.
    """
    return (1 - np.asarray(accuracy)) * np.log(2)


# --- calibration ----------------------------------------------------------------------------------------------------


def reliability_bins(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> ReliabilityBins:
    """Mean confidence and accuracy in equal bins (0, 1/B], (1/B, 2/B], …

    confidence: (N,) in [0, 1]. correct: (N,) bool.
    """
    confidence, correct = _same_length(np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float))
    if confidence.min() < 0 or confidence.max() > 1:
        raise ValueError(
            f"confidences from {confidence.min():g} to {confidence.max():g}: give probabilities between 0 and 1"
        )
    edges = np.linspace(0, 1, bins + 1)
    index = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):  # 0/0 = nan marks an empty bin
        mean_confidence = np.bincount(index, confidence, bins) / count
        mean_accuracy = np.bincount(index, correct, bins) / count
    return ReliabilityBins(edges, count, mean_confidence, mean_accuracy)


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> float:
    """Mean distance between confidence and accuracy over the bins, weighted by their images (Guo et al., 2017)."""
    table = reliability_bins(confidence, correct, bins)
    filled = table.count > 0
    gaps = np.abs(table.confidence - table.accuracy)[filled]
    return float(np.average(gaps, weights=table.count[filled]))


# --- intervals ------------------------------------------------------------------------------------------------------


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Interval of a share from `successes` of `n` (Wilson, 1927): right answers of one run."""
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"{successes} of {n}: give between 0 and n successes of at least one trial")
    result = scipy.stats.binomtest(int(successes), int(n)).proportion_ci(confidence, method="wilson")
    return Interval(float(result.low), float(result.high), "Wilson over one run's images")


def mean_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Student's t interval of the mean of at least two seeds' values."""
    values = np.asarray(values, dtype=float)
    if values.size < 2:
        raise ValueError(f"{values.size} value: a t interval needs two seeds or more; one run has a Wilson interval")
    half = scipy.stats.t.ppf((1 + confidence) / 2, values.size - 1) * values.std(ddof=1) / np.sqrt(values.size)
    return Interval(float(values.mean() - half), float(values.mean() + half), f"Student's t over {values.size} seeds")


def accuracy_interval(successes: Sequence[int], n: int, confidence: float = 0.95) -> Interval:
    """Interval of a mean accuracy; `successes` has each seed's right answers of the same `n` images.

    Student's t over the seeds, cut to [0, 1]. One seed, or seeds that all agree and so show no scatter, fall back on
    Wilson's interval of one run.
    """
    if len(set(successes)) < 2:
        return wilson_interval(successes[0], n, confidence)
    return _share(mean_interval(np.asarray(successes) / n, confidence))


def _share(interval: Interval) -> Interval:
    return interval._replace(low=max(interval.low, 0.0), high=min(interval.high, 1.0))


def next_run(values: ArrayLike) -> Interval:
    """Where one more training's value lies with 95 % probability, from at least two seeds' (Student's prediction)."""
    values = np.asarray(values, dtype=float)
    n = values.size
    if n < 2:
        return Interval(np.nan, np.nan, "none, one run")
    half = scipy.stats.t.ppf(0.975, n - 1) * values.std(ddof=1) * np.sqrt(1 + 1 / n)
    return Interval(float(values.mean() - half), float(values.mean() + half), f"prediction from {n} seeds")


def next_accuracy(successes: Sequence[int], n: int) -> Interval:
    """`next_run` of accuracies, with the fall-back of `accuracy_interval`, whose arguments it has."""
    if len(set(successes)) < 2:
        return accuracy_interval(successes, n)
    return _share(next_run(np.asarray(successes) / n))


def loss_interval(losses: Sequence[ArrayLike], confidence: float = 0.95) -> Interval:
    """Interval of a mean loss: t over seeds, or over one run's images. `losses` has each seed's losses, (N,) each."""
    if len(losses) > 1:
        return mean_interval([np.asarray(one, dtype=float).mean() for one in losses], confidence)
    low, high, _ = mean_interval(losses[0], confidence)
    return Interval(low, high, "Student's t over one run's images")


def verdict(reported: float, low: float, high: float, tolerance: float = 0.0) -> str:
    """What was measured, relative to what was reported: `agrees`, `higher` or `lower`.

    It agrees when the interval [low, high], of one training, reaches the reported value, or what prints like it
    (± `tolerance`).
    """
    if low > reported + tolerance:
        return "higher"
    return "lower" if high < reported - tolerance else "agrees"


def independent_difference(a: ArrayLike, b: ArrayLike, confidence: float = 0.95) -> Interval:
    """Interval of mean(a) − mean(b) for the same seeds' answers on two different sets of images.

    a: (seeds, N), b: (seeds, M), of 0 and 1. Variances are added as in `paired_test`, after one imagined right and one
    wrong answer on each side (Agresti and Caffo, 2000).
    """
    a, b = np.atleast_2d(np.asarray(a, dtype=float)), np.atleast_2d(np.asarray(b, dtype=float))
    images = [np.append(x.mean(axis=0), [0.0, 1.0]) for x in (a, b)]
    terms = [(x.var() / x.size, x.size - 1) for x in images]
    if (seeds := len(a)) > 1:
        chance = sum(x.var(axis=0, ddof=1).mean() / x.shape[1] for x in (a, b))
        between = (a.mean(axis=1) - b.mean(axis=1)).var(ddof=1)
        terms.append((max(between - chance, 0.0) / seeds, seeds - 1))
    variance, freedom = _sum_of(terms)
    half = scipy.stats.t.ppf((1 + confidence) / 2, freedom) * np.sqrt(variance)
    centre = images[0].mean() - images[1].mean()
    method = "Student's t over images and seeds" if seeds > 1 else "Student's t over two sets of images"
    return Interval(float(centre - half), float(centre + half), method)


# --- records --------------------------------------------------------------------------------------------------------


def places(
    record: RunRecord,
    true: int | None = None,
    called: int | None = None,
    other: RunRecord | None = None,
    other_right: bool | None = None,
) -> np.ndarray:
    """Which test images a network answered so, surest first: (K,) int64 places in the test set.

    Of class `true` and called `called`; without either, all its errors. With `other`, only images on which that network
    is right, or wrong.
    """
    seen = record.predictions
    chosen = ~seen.correct if true is None and called is None else np.ones(len(seen.labels), dtype=bool)
    if true is not None:
        chosen &= seen.labels == true
    if called is not None:
        chosen &= seen.predicted == called
    if other is not None and other_right is not None:
        chosen &= other.predictions.correct == other_right
    order = np.argsort(-seen.confidence, kind="stable")
    return order[chosen[order]]


def answers(records: Sequence[RunRecord]) -> np.ndarray:
    """(seeds, N) bool: which test images each run of one recipe got right.

    Raises:
        ValueError: there is no record, or they are of different test images.
    """
    if not records:
        raise ValueError("no record to evaluate: train this recipe first")
    if any(not np.array_equal(r.predictions.labels, records[0].predictions.labels) for r in records):
        stems = ", ".join(record.stem for record in records)
        raise ValueError(f"{stems}: different test images; evaluate runs on the same data together")
    return np.stack([record.predictions.correct for record in records])


def measure(records: Sequence[RunRecord], quantity: str) -> Measurement:
    """A quantity that `reported.Statement` names, as the runs of one recipe measured it.

    Accuracies are shares, losses nats, the size is in MiB. The interval of a single run's training or validation loss
    is nan: the record holds no losses of single images there.
    """
    correct = answers(records)
    split, _, kind = quantity.partition(" ")
    one_training = None
    if quantity == "test accuracy":
        values = correct.mean(axis=1)
        right = correct.sum(axis=1).tolist(), correct.shape[1]
        interval, one_training = accuracy_interval(*right), next_accuracy(*right)
    elif quantity == "test loss":
        values = [record.predictions.nll.mean(dtype=float) for record in records]
        interval = loss_interval([record.predictions.nll for record in records])
    elif kind in ("accuracy", "loss") and split in ("training", "validation"):
        measured = [record.train_score if split == "training" else record.val_score for record in records]
        scores = [score for score in measured if score is not None]
        if len(scores) < len(records):
            raise ValueError(f"{records[0].name} was trained on the validation images, so it has no {quantity}")
        values = [getattr(score, kind) for score in scores]
        if kind == "accuracy":
            right = [round(score.accuracy * score.n) for score in scores], scores[0].n
            interval, one_training = accuracy_interval(*right), next_accuracy(*right)
        else:
            interval = mean_interval(values) if len(values) > 1 else Interval(np.nan, np.nan, "none, one run")
    elif quantity in ("parameters", "size"):
        values = [record.parameters if quantity == "parameters" else record.size_bytes / 2**20 for record in records]
        interval = one_training = Interval(values[0], values[0], "exact")
    else:
        raise ValueError(f"{quantity!r} is not measured; ask for an accuracy, a loss, parameters or size")
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    one_training = one_training or (next_run(values) if len(values) > 1 else interval)
    return Measurement(float(np.mean(values)), sd, len(values), interval, one_training)


def calibration(records: Sequence[RunRecord]) -> Calibration:
    """How sure the runs of one recipe are, how often they are right, and how far apart the two are, bin by bin."""
    runs = [record.predictions for record in records]
    return Calibration(
        confidence=float(np.mean([run.confidence.mean(dtype=float) for run in runs])),
        accuracy=measure(records, "test accuracy").value,  # as everywhere else, also where it ends in a half
        error=float(np.mean([expected_calibration_error(run.confidence, run.correct) for run in runs])),
    )


# --- paired tests ---------------------------------------------------------------------------------------------------


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike) -> float:
    """Two-sided p of the exact McNemar test that two networks are right equally often; correct_*: (N,) bool, paired."""
    a, b = _same_length(np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool))
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    return float(scipy.stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def paired_test(correct_a: ArrayLike, correct_b: ArrayLike, confidence: float = 0.95) -> PairedTest:
    """Compare two systems on the same N images; correct_a: (seeds of A, N) bool, correct_b: (seeds of B, N) bool.

    The difference scatters with the images and with both systems' seeds, and its variance is estimated as a sum: over
    images, of the difference of the seeds' mean answers; and over each system's seeds, of what their accuracies scatter
    beyond what chance on N images explains (a crossed random-effects model; degrees of freedom are Satterthwaite's). A
    system with a single seed adds no seed term: the result then speaks for that one training. Two imagined images, one
    for each side, keep the variance off zero (Bonett and Price, 2012). With one seed each, p is McNemar's exact one.
    """
    a, b = np.atleast_2d(np.asarray(correct_a, dtype=float)), np.atleast_2d(np.asarray(correct_b, dtype=float))
    if a.shape[1] != b.shape[1] or a.size == 0:
        raise ValueError(
            f"{a.shape[1]} and {b.shape[1]} images: a paired test needs both systems' answers on the same images"
        )
    difference = a.mean() - b.mean()
    images = np.append(a.mean(axis=0) - b.mean(axis=0), [1.0, -1.0])
    terms = [(images.var() / images.size, images.size - 1)]
    terms += [(_seed_variance(x) / len(x), len(x) - 1) for x in (a, b) if len(x) > 1]
    variance, freedom = _sum_of(terms)
    error, centre = np.sqrt(variance), images.mean()
    half = scipy.stats.t.ppf((1 + confidence) / 2, freedom) * error
    if len(a) == len(b) == 1:
        p, method = mcnemar(a[0], b[0]), "McNemar's exact"
    else:
        p, method = 2 * scipy.stats.t.sf(abs(centre) / error, freedom), "Student's t over images and seeds"
    return PairedTest(float(difference), float(centre - half), float(centre + half), float(p), method)


def _sum_of(terms: Sequence[tuple[Any, Any]]) -> tuple[Any, Any]:
    """The variance of a sum of estimates, and its degrees of freedom after Satterthwaite; terms: those of each."""
    variance = sum(term for term, _ in terms)
    return variance, variance**2 / sum(term**2 / freedom for term, freedom in terms)


def _seed_variance(answers: np.ndarray) -> float:
    """Variance of the seeds' accuracies beyond the scatter of single answers; answers: (seeds, N) of 0 and 1."""
    between = answers.mean(axis=1).var(ddof=1)
    within = answers.var(axis=0, ddof=1).mean()
    return max(between - within / answers.shape[1], 0.0)


MOST_SEEDS = 1000  # that are worth asking for


def seeds_to_decide(correct_a: ArrayLike, correct_b: ArrayLike, threshold: float = 0.0, power: float = 0.8) -> float:
    """How many seeds a side would tell the difference A − B from `threshold`, were it as large as it was measured.

    From the variances that `paired_test` estimates, with a probability of `power` at the 5 % level. inf: not even
    `MOST_SEEDS`, since the images' own scatter remains. A side with a single seed counts as having no scatter.
    """
    a, b = np.atleast_2d(np.asarray(correct_a, dtype=float)), np.atleast_2d(np.asarray(correct_b, dtype=float))
    images = np.append(a.mean(axis=0) - b.mean(axis=0), [1.0, -1.0])  # as in `paired_test`
    several = [x for x in (a, b) if len(x) > 1]
    scatters = [_seed_variance(x) for x in several]
    # What single answers scatter from seed to seed is in the images' variance, and more seeds average it out.
    within = [x.var(axis=0, ddof=1).mean() for x in several]
    lasting = max(images.var() - sum(w / len(x) for w, x in zip(within, several, strict=True)), 0.0)

    def terms(n: np.ndarray) -> list[tuple[Any, Any]]:
        of_images = (lasting + sum(within) / n) / images.size
        return [(of_images, images.size - 1), *((scatter / n, n - 1) for scatter in scatters)]

    return _fewest(abs(a.mean() - b.mean() - threshold), terms, power)


def seeds_for_mean(values: ArrayLike, threshold: float, power: float = 0.8) -> float:
    """How many seeds would tell the mean of `values` from `threshold`; otherwise as `seeds_to_decide`."""
    values = np.asarray(values, dtype=float)
    variance = values.var(ddof=1)
    return _fewest(abs(values.mean() - threshold), lambda n: [(variance / n, n - 1)], power)


def _fewest(gap: float, terms: Callable[[np.ndarray], Sequence[tuple[Any, Any]]], power: float) -> float:
    """`terms` gives the variances and degrees of freedom for so many seeds, as `_sum_of` takes them."""
    seeds = np.arange(2, MOST_SEEDS + 1)  # all at once, as asking SciPy for one quantile takes as long
    variance, freedom = _sum_of(terms(seeds))
    needed = scipy.stats.t.ppf(0.975, freedom) + scipy.stats.t.ppf(power, freedom)
    enough = seeds[needed * np.sqrt(variance) <= gap]
    return int(enough[0]) if enough.size else float("inf")


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjustment: p-values that stay honest when this many tests are read together."""
    order = np.argsort(p_values)
    scaled = np.asarray(p_values, dtype=float)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted.tolist()
