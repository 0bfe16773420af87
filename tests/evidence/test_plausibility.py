"""A report against itself and against measured runs, on numbers whose verdicts are known."""

import dataclasses
import math

import numpy as np
import pytest
from fake_records import fake_record, fake_records, fake_suite
from scipy import stats

from labreport.evidence import figures, plausibility
from labreport.evidence.plausibility import beside, contradictions, fits, next_run, plausible, rounding
from labreport.facts.reported import LAB_REPORT, ClassLine, Report, Statement, System, TableRow


def report_of(*statements, listing=(), table=()):
    return Report("mine", {"baseline": System("baseline", statements, tuple(listing))}, tuple(table), {})


def lines(*counts):
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    return [ClassLine(name, count // 10, count, 1000) for name, count in zip(names, counts, strict=True)]


ACCURACY = Statement("test accuracy", 0.7, "70%", "3", 0.005)
CONSISTENT = lines(*[700] * 10)


def test_a_consistent_report_has_no_contradiction():
    row = TableRow("Origin", 70, "baseline", "test")
    loss = Statement("test loss", 0.9, "0.9", "3", 0.05)
    assert contradictions(report_of(ACCURACY, loss, listing=CONSISTENT, table=[row])) == []


CONTRADICTIONS = {
    "two values": report_of(ACCURACY, Statement("test accuracy", 0.72, "72%", "4", 0.005)),
    "a sum": report_of(ACCURACY, listing=lines(*[720] * 10)),
    "a percentage": report_of(ACCURACY, listing=[dataclasses.replace(CONSISTENT[0], percent=72), *CONSISTENT[1:]]),
    "more right than images": report_of(listing=[ClassLine("dog", 67, 1001, 1000)]),
    "a class twice": report_of(listing=[CONSISTENT[0], CONSISTENT[0]]),
    "a loss": report_of(ACCURACY, Statement("test loss", 0.1, "0.10", "3", 0.005)),
    "a table": report_of(ACCURACY, table=[TableRow("Origin", 75, "baseline", "test")]),
}


@pytest.mark.parametrize("kind", CONTRADICTIONS)
def test_each_kind_of_contradiction_is_found_once(kind):
    assert len(contradictions(CONTRADICTIONS[kind])) == 1


def test_the_lab_reports_own_contradictions():
    """E18 and others: the baseline's two accuracies, the transcripts' epoch 10, losses that cannot be."""
    said = [(c.where, c.but) for c in contradictions(LAB_REPORT)]
    assert ("baseline", "67% (Table 1)") in said
    assert any(where == "dnn_softmax" and "0.101" in but for where, but in said)
    assert not [c for c in contradictions(LAB_REPORT) if c.where in ("fine_tuned", "deep_cnn")]


def test_rounding_of_a_listing():
    assert rounding(LAB_REPORT.systems["baseline"].per_class) == "cut off"
    assert rounding([ClassLine("dog", 68, 678, 1000)]) == "rounded"
    assert rounding([ClassLine("dog", 67, 670, 1000)]) == "either"
    assert rounding([ClassLine("dog", 60, 678, 1000)]) == "neither"


def test_one_more_run_lies_in_its_interval_as_often_as_it_says():
    rng = np.random.default_rng(0)
    draws = rng.normal(0.7, 0.01, (4000, 6))
    inside = [low <= row[5] <= high for row in draws for low, high, _ in [next_run(row[:5])]]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.012)
    values = [0.7, 0.71, 0.73]
    half = stats.t.ppf(0.975, 2) * np.std(values, ddof=1) * math.sqrt(4 / 3)
    assert next_run(values).high == pytest.approx(np.mean(values) + half)
    assert math.isnan(next_run([0.7]).low)


def test_verdicts_reach_as_far_as_the_printed_digits():
    interval = next_run([0.70, 0.71, 0.72])
    at = dataclasses.replace(ACCURACY, value=interval.high + 0.004)
    assert plausible(at, interval) == "plausible"
    assert plausible(dataclasses.replace(at, tolerance=0.0), interval) == "too high"
    assert plausible(dataclasses.replace(at, value=interval.low - 0.006), interval) == "too low"


def test_a_listing_of_a_run_fits_its_own_network_best():
    suite = fake_suite(seeds=5, n_test=10_000)
    extra = fake_record("fine_tuned", 9, n_test=10_000, accuracy=0.789).predictions
    counts = [int(extra.correct[extra.labels == k].sum()) for k in range(10)]
    best = fits(lines(*counts), suite)[0]
    assert best.name == "fine_tuned" and best.overall == "plausible"
    assert best.distance < 3


def test_what_was_not_run_is_said_and_drawn():
    found = beside(LAB_REPORT, {"baseline": fake_records(n_test=10_000)})
    verdicts = {(one.title, one.statement.printed): one.verdict for one in found}
    assert verdicts[("Origin", "78% (7808/10000)")] == "too high"
    assert verdicts[("Origin", "67%")] == "plausible"
    table = plausibility.plausibility_table(found)
    assert set(table[table["System"] == "Fine-tuning"]["Measured"]) == {"not run"}
    figures.beside(found)
