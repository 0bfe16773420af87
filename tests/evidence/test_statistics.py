"""Evaluation against textbook values, brute force and simulation."""

import math

import numpy as np
import pytest
from fake_records import fake_record, fake_records
from scipy import stats

from labreport.evidence import statistics
from labreport.evidence.statistics import accuracy_interval, measure, paired_test, verdict, wilson_interval

RNG = np.random.default_rng(0)


# --- accuracy, confusion, calibration -------------------------------------------------------------------------------


def test_confusion_and_accuracies_against_counting():
    labels, predicted = RNG.integers(0, 4, 300), RNG.integers(0, 4, 300)
    matrix = statistics.confusion(labels, predicted, 5)
    assert matrix.shape == (5, 5)  # a class without images keeps its row
    for i in range(5):
        for j in range(5):
            assert matrix[i, j] == sum(a == i and b == j for a, b in zip(labels, predicted, strict=True))
    correct, total = statistics.per_class_accuracy(labels, predicted, 5)
    assert correct.sum() / total.sum() == statistics.accuracy(labels, predicted)
    assert total.tolist() == [int((labels == i).sum()) for i in range(5)]


@pytest.mark.parametrize("pair", [([], []), ([1, 2], [1])])
def test_accuracy_needs_matching_images(pair):
    with pytest.raises(ValueError, match="one value per image"):
        statistics.accuracy(*pair)


def test_calibration_tells_the_accuracy_that_every_table_prints():
    """To the last bit: 77.585 % is else 77.58 in one table and 77.59 in another."""
    records = [fake_record(seed=seed, accuracy=(1000 + seed) / 2000) for seed in range(10)]
    assert statistics.calibration(records).accuracy == statistics.measure(records, "test accuracy").value


def test_calibration_error_by_hand():
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.55, 0.55])
    correct = np.array([True, True, True, False, True, False])
    bins = statistics.reliability_bins(confidence, correct, bins=10)
    assert bins.count.tolist() == [0, 0, 0, 0, 0, 2, 0, 0, 0, 4]
    assert bins.accuracy[[5, 9]].tolist() == [0.5, 0.75]
    assert np.isnan(bins.accuracy[0])
    assert statistics.expected_calibration_error(confidence, correct, bins=10) == pytest.approx(
        (4 * 0.2 + 2 * 0.05) / 6
    )


def test_answers_drawn_at_their_confidence_are_calibrated():
    confidence = RNG.uniform(0.1, 1.0, 200_000)
    correct = RNG.random(200_000) < confidence
    assert statistics.expected_calibration_error(confidence, correct) < 0.01
    assert statistics.expected_calibration_error(confidence, np.ones(200_000)) == pytest.approx(0.45, abs=0.01)


def test_confidence_one_and_bin_edges_have_a_bin():
    assert statistics.reliability_bins([0.0, 0.5, 1.0], [1, 1, 1], bins=2).count.tolist() == [2, 1]


def test_confidence_outside_the_unit_interval_is_refused():
    with pytest.raises(ValueError, match="probabilities"):
        statistics.reliability_bins([1.5], [True])


def test_least_cross_entropy_is_reached_by_two_way_doubt():
    # Right answers at certainty, wrong ones at one half: no network of this accuracy has a lower mean.
    losses = [0.0] * 7 + [-math.log(0.5)] * 3
    assert statistics.least_cross_entropy(0.7) == pytest.approx(np.mean(losses))


# --- intervals ------------------------------------------------------------------------------------------------------


def test_wilson_interval_by_its_formula():
    z, n, p = 1.959963984540054, 10_000, 0.7808
    centre, half = (
        (p + z**2 / (2 * n)) / (1 + z**2 / n),
        z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n),
    )
    low, high, method = wilson_interval(7808, n)
    assert (low, high) == pytest.approx((centre - half, centre + half), abs=1e-12)
    assert method.startswith("Wilson")


def test_wilson_interval_stays_inside_at_the_ends():
    assert wilson_interval(0, 50).low == 0
    assert wilson_interval(50, 50).high == 1
    with pytest.raises(ValueError, match="11 of 10"):
        wilson_interval(11, 10)


def test_t_interval_by_hand():
    # mean 2, standard deviation 1, n = 3, t = 4.302653
    assert statistics.mean_interval([1, 2, 3])[:2] == pytest.approx(
        (2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), abs=1e-5
    )
    with pytest.raises(ValueError, match="two seeds"):
        statistics.mean_interval([1.0])


def test_accuracy_interval_says_what_it_is_of():
    assert accuracy_interval([80], 100) == wilson_interval(80, 100)
    assert accuracy_interval([80, 80, 80], 100) == wilson_interval(80, 100)
    several = accuracy_interval([80, 82, 84], 100)
    assert several.method == "Student's t over 3 seeds"
    assert several.low < 0.82 < several.high
    assert accuracy_interval([90, 100], 100).high == 1.0


@pytest.mark.parametrize(
    ("reported", "expected"), [(0.70, "agrees"), (0.60, "higher"), (0.80, "lower"), (0.65, "agrees"), (0.75, "agrees")]
)
def test_verdict_is_relative_to_what_was_reported(reported, expected):
    assert verdict(reported, 0.65, 0.75) == expected


def test_what_some_seeds_reach_is_not_judged_by_the_interval_of_their_mean():
    """More seeds make the mean's interval as narrow as one likes, and one training scatters as before."""
    rng = np.random.default_rng(0)
    records = [
        fake_record("fine_tuned", s, n_test=10_000, accuracy=a) for s, a in enumerate(rng.normal(0.776, 0.005, 10))
    ]
    measured = measure(records, "test accuracy")
    assert max(r.predictions.correct.mean() for r in records) > 0.7808 > measured.interval.high
    assert verdict(0.7808, *measured.one_training[:2]) == "agrees"


def test_a_single_run_is_judged_by_its_images():
    measured = measure([fake_record("fine_tuned")], "test accuracy")
    assert measured.one_training == measured.interval


def test_verdict_allows_for_rounding():
    assert verdict(0.67, 0.672, 0.674) == "higher"
    assert verdict(0.67, 0.672, 0.674, tolerance=0.005) == "agrees"


# --- paired tests ---------------------------------------------------------------------------------------------------


def answers_of(seeds: int, ease: np.ndarray, rng: np.random.Generator, seed_sd: float = 0.05) -> np.ndarray:
    """(seeds, N) answers that share each image's ease; seeds differ a little in skill."""
    noise = rng.normal(0, 0.7, (seeds, ease.size)) + rng.normal(0, seed_sd, (seeds, 1))
    return rng.random((seeds, ease.size)) < 1 / (1 + np.exp(-(ease + noise)))


def test_mcnemar_against_the_binomial_sum():
    a = np.array([True] * 12 + [False] * 3 + [True] * 50 + [False] * 20)
    b = np.array([False] * 12 + [True] * 3 + [True] * 50 + [False] * 20)
    exact = 2 * sum(math.comb(15, k) for k in range(4)) / 2**15
    assert statistics.mcnemar(a, b) == pytest.approx(exact)
    assert statistics.mcnemar(a, a) == 1.0


def test_paired_test_of_single_runs_is_mcnemar_with_bonett_and_prices_interval():
    rng = np.random.default_rng(3)
    a, b = answers_of(1, rng.normal(1, 1.5, 500), rng)[0], answers_of(1, rng.normal(1, 1.5, 500), rng)[0]
    result = paired_test(a, b)
    p12, p21 = ((a & ~b).sum() + 1) / 502, ((~a & b).sum() + 1) / 502
    half = stats.norm.ppf(0.975) * math.sqrt((p12 + p21 - (p12 - p21) ** 2) / 502)
    assert result.p == statistics.mcnemar(a, b)
    assert result.difference == pytest.approx(a.mean() - b.mean())
    assert (result.low, result.high) == pytest.approx((p12 - p21 - half, p12 - p21 + half), rel=0.01)


@pytest.mark.parametrize(("n_a", "n_b"), [(1, 1), (3, 3), (2, 5)])
def test_paired_test_keeps_its_promise_when_nothing_differs(n_a, n_b):
    rng = np.random.default_rng(5)
    results = []
    for _ in range(400):
        ease = rng.normal(1, 1.5, 500)
        results.append(paired_test(answers_of(n_a, ease, rng), answers_of(n_b, ease, rng)))
    seed_limited = 0.05 if (n_a, n_b) == (1, 1) else 0.0  # single runs: two trainings do differ a little
    assert np.mean([r.p < 0.05 for r in results]) < 0.08 + seed_limited
    assert np.mean([r.low <= 0 <= r.high for r in results]) > 0.92 - seed_limited


def test_paired_test_finds_a_difference_and_its_sign():
    rng = np.random.default_rng(6)
    ease = rng.normal(1, 1.5, 4000)
    better, worse = answers_of(3, ease + 0.4, rng), answers_of(3, ease, rng)
    result = paired_test(better, worse)
    assert result.p < 0.001
    assert 0 < result.low < result.difference < result.high
    assert paired_test(worse, better).difference == -result.difference


def test_paired_test_of_equal_answers():
    same = np.ones((2, 100), dtype=bool)
    result = paired_test(same, same)
    assert (result.difference, result.p) == (0.0, 1.0)
    assert result.low < 0 < result.high


def test_paired_test_needs_the_same_images():
    with pytest.raises(ValueError, match="100 and 90 images"):
        paired_test(np.ones((1, 100)), np.ones((1, 90)))


def test_as_many_seeds_as_asked_for_decide_four_times_in_five():
    """By drawing: seeds whose accuracy scatters by a point, a difference of one point, no scatter of images."""
    rng = np.random.default_rng(0)
    n = statistics.seeds_for_mean([0.0, 0.01, 0.02], 0.0)  # mean and deviation one point
    assert n == 10  # Student's: a gap of one deviation needs ten for 80 % power
    draws = rng.normal(0.01, 0.01, (4000, int(n)))
    decided = [statistics.mean_interval(row).low > 0 for row in draws]
    assert np.mean(decided) == pytest.approx(0.8, abs=0.04)


def test_seeds_cannot_decide_what_the_images_leave_open():
    rng = np.random.default_rng(0)
    a, b = (rng.random((3, 1000)) < 0.7 for _ in range(2))
    gap = abs(float(a.mean() - b.mean()))
    assert statistics.seeds_to_decide(a, b, threshold=a.mean() - b.mean()) == np.inf
    assert statistics.seeds_to_decide(a, b, threshold=gap + 0.5) == 2


def test_more_seeds_average_out_what_single_answers_scatter():
    """All the scatter is the answers' own, so a side of n seeds has a variance of 0.21 / 100,000 n."""
    rng = np.random.default_rng(2)
    a, b = (rng.random((4, 100_000)) < 0.7 for _ in range(2))
    wanted = 2 * 0.21 / 100_000 * (1.96 + 0.84) ** 2 / 0.002**2
    found = statistics.seeds_to_decide(a, b, threshold=a.mean() - b.mean() - 0.002)
    assert found == pytest.approx(wanted, rel=0.3)


def test_one_sides_scatter_is_known_from_that_sides_seeds_only():
    """The other side's seeds, which hardly differ, do not make it better known."""
    rng = np.random.default_rng(1)
    a, b = (np.stack([rng.random(200_000) < rate for rate in rates]) for rates in ((0.63, 0.65, 0.67), (0.6,) * 3))
    assert statistics.seeds_to_decide(a, b) == statistics.seeds_for_mean([0.03, 0.05, 0.07], 0.0) == 4


def test_holm_by_hand():
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([0.6, 0.7]) == [1.0, 1.0]


def test_seeds_that_differ_widen_the_difference_of_two_classes():
    """Seeds lean to one class or the other; the images alone would not tell how much."""
    rng = np.random.default_rng(3)
    lean = np.array([0.1, 0.0, -0.1, 0.05, -0.05])[:, None]
    a, b = rng.random((5, 5000)) < 0.7 + lean, rng.random((5, 5000)) < 0.7 - lean
    low, high, _ = statistics.independent_difference(a, b)
    one, other, _ = statistics.independent_difference(a.mean(axis=0), b.mean(axis=0))
    assert high - low > 5 * (other - one)
    assert (high - low) / 2 == pytest.approx(2.776 * np.std(2 * lean, ddof=1) / math.sqrt(5), rel=0.1)


def test_independent_difference_covers_the_truth():
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(500):
        low, high, _ = statistics.independent_difference(rng.random(200) < 0.9, rng.random(150) < 0.8)
        hits += low <= 0.1 <= high
    assert hits > 460


# --- records --------------------------------------------------------------------------------------------------------


def test_measured_accuracy_is_counted_from_the_predictions():
    records = fake_records("fine_tuned", 3)
    result = measure(records, "test accuracy")
    shares = [float((r.predictions.predicted == r.predictions.labels).mean()) for r in records]
    assert result.value == pytest.approx(np.mean(shares))
    assert result.sd == pytest.approx(np.std(shares, ddof=1))
    assert result.n == 3
    assert result.interval.low < result.value < result.interval.high


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("quantity", ["test loss", "training accuracy", "validation accuracy", "parameters", "size"])
def test_intervals_hold_the_measured_value(quantity, seeds):
    result = measure(fake_records(seeds=seeds), quantity)
    assert result.interval.low <= result.value <= result.interval.high
    assert math.isnan(result.sd) == (seeds == 1)


def test_size_is_in_mib():
    assert measure([fake_record("first_optimization")], "size").value == pytest.approx(0.2868, abs=1e-4)


def test_what_cannot_be_measured_says_so():
    with pytest.raises(ValueError, match="no record"):
        measure([], "test accuracy")
    with pytest.raises(ValueError, match="'test precision' is not measured"):
        measure([fake_record()], "test precision")
    with pytest.raises(ValueError, match="different test images"):
        measure([fake_record(n_test=100), fake_record(seed=1, n_test=200)], "test accuracy")
