"""Tables against recounts of the same records, and what they must say when there is nothing to compare."""

import dataclasses
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from fake_records import OTHER_WEIGHTS, SUITE, fake_record, fake_records, fake_suite

from labreport.evidence import tables
from labreport.evidence.claims import claims, ranking
from labreport.facts.errata import ERRATA
from labreport.facts.recipes import RECIPES, UPSCALED
from labreport.facts.reported import CIFAR10_CLASSES, SYSTEMS, TABLE_1

SHAPES = ("disc", "ring", "square", "frame", "triangle", "cross", "stripes", "checkers", "crescent", "star")
STAND_IN = {"classes": SHAPES, "source": "synthetic stand-in"}


def only(frame, column: str, value: str) -> dict:
    (row,) = frame[frame[column] == value].to_dict("records")
    return row


# --- one system -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_table_has_a_source_for_every_setting(name):
    frame = tables.recipe_table(RECIPES[name])
    assert frame["Source"].str.match("stated by the report|chosen").all()
    assert only(frame, "Setting", "epochs")["Value"] == str(RECIPES[name].epochs)
    stated = only(frame, "Setting", "learning rate")["Source"] == "stated by the report"
    assert stated == ("lr" in RECIPES[name].stated)


def test_recipe_of_ones_own_and_a_single_epoch():
    recipe = dataclasses.replace(RECIPES["baseline"], epochs=1, whiten=True, stated=())
    frame = tables.recipe_table(recipe)
    assert only(frame, "Setting", "epochs") == {"Setting": "epochs", "Value": "1", "Source": "chosen"}
    assert only(frame, "Setting", "whiten")["Value"] == "yes"


def test_a_listing_beside_two_networks():
    """The verdicts are those of the per-class tables, the loss's by its own interval."""
    listing = SYSTEMS["baseline"]
    suite = {"baseline": fake_records("baseline"), "fine_tuned": fake_records("fine_tuned")}
    frame = tables.listing_table(listing, suite)
    assert list(frame[""]) == ["loss", *CIFAR10_CLASSES]
    assert only(frame, "", "cat")["The report"] == "59.2 %"
    expected = tables.per_class_table(suite["fine_tuned"], listing)["Verdict"]
    assert list(frame.iloc[1:, 5]) == list(expected)
    assert frame.shape[1] == 6


def test_what_was_counted_from_the_reports_code_is_not_confirmed_by_counting_again():
    frame = tables.summary_table(fake_records("fine_tuned"), SYSTEMS["fine_tuned"])
    assert only(frame, "Quantity", "Parameters")["Verdict"] == "—"


@pytest.mark.parametrize(("epochs", "rows"), [(1, 1), (3, 3), (20, 20), (300, 20)])
def test_history_keeps_the_first_and_last_epoch(epochs, rows):
    frame = tables.history_table(fake_record(epochs=epochs).history)
    assert len(frame) == rows
    assert (frame["Epoch"].iloc[0], frame["Epoch"].iloc[-1]) == ("1", str(epochs))


def test_summary_shows_both_of_the_baselines_reported_accuracies():
    frame = tables.summary_table([fake_record(accuracy=0.672)], SYSTEMS["baseline"])
    rows = frame[frame["Quantity"] == "Test accuracy"].to_dict("records")
    assert [row["Reported"] for row in rows] == ["78% (7808/10000)", "67%"]
    assert [row["Verdict"] for row in rows] == ["lower", "agrees"]
    assert {row["Measured"] for row in rows} == {"67.20 % (1344/2000)"}


def test_summary_of_several_seeds_and_of_the_size():
    records = fake_records("first_optimization", 3)
    frame = tables.summary_table(records, SYSTEMS["first_optimization"])
    shares = [100 * r.predictions.correct.mean() for r in records]
    measured = only(frame, "Quantity", "Test accuracy")["Measured"]
    assert measured == f"{np.mean(shares):.2f} ± {np.std(shares, ddof=1):.2f} % (n = 3)"
    assert only(frame, "Quantity", "Size")["Verdict"] == "higher"
    assert only(frame, "Quantity", "Parameters")["Verdict"] == "agrees"


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("name", SUITE)
def test_summary_of_every_system(name, seeds):
    frame = tables.summary_table(fake_records(name, seeds), SYSTEMS.get(name))
    assert {"Test loss", "Test accuracy", "Parameters", "Size"} <= set(frame["Quantity"])
    assert not frame.isna().any(axis=None)


def test_class_table_has_the_reports_form_and_pools_the_seeds():
    records = fake_records(seeds=2)
    row = only(tables.per_class_table(records, SYSTEMS["baseline"]), "Class", "cat")
    hits = sum(int((r.predictions.correct & (r.predictions.labels == 3)).sum()) for r in records)
    assert row["Reported"] == "59% (592/1000)"
    assert row["Measured"] == f"{100 * hits / 400:.0f}% ({hits}/400)"
    assert row["Verdict"] in ("agrees", "higher", "lower")


def test_a_column_of_dashes_is_left_out():
    """The report lists no classes of this network, so that nothing of them is reported or judged."""
    records = fake_records("resnet18")
    shown = tables.without_empty(tables.per_class_table(records, SYSTEMS["resnet18"]))
    assert list(shown.columns) == ["Class", "Measured", "95 % interval"]
    listed = tables.per_class_table(fake_records(), SYSTEMS["baseline"])
    pd.testing.assert_frame_equal(tables.without_empty(listed), listed)


def test_nothing_is_compared_on_the_stand_in():
    suite = fake_suite(2, **STAND_IN)
    for name in SUITE:
        summary = tables.summary_table(suite[name], SYSTEMS.get(name))
        assert set(summary["Verdict"]) == {"—"}
        classes = tables.per_class_table(suite[name], SYSTEMS.get(name))
        assert set(classes["Verdict"]) == set(classes["Reported"]) == {"—"}
        assert tuple(classes["Class"]) == SHAPES
    assert set(tables.table1(suite)["Verdict"]) == {"—"}


def test_an_unverified_copy_is_compared():
    assert "agrees" in set(tables.table1(fake_suite(3, source="unverified copy"))["Verdict"])


def test_resnet_log_shows_both_transcripts_and_the_run():
    frame = tables.resnet_log_table(fake_record("resnet18", epochs=8))
    assert only(frame, "Epoch", "9")["Printed loss"] == "0.0975 / 0.0075"
    assert only(frame, "Epoch", "7")["Printed loss"] == "0.0264"
    assert frame["Measured val. loss"].tolist()[8:] == ["—", "—"]
    assert list(tables.resnet_log_table().columns) == list(frame.columns[:4])


# --- all systems ----------------------------------------------------------------------------------------------------


def test_table_1_keeps_the_reports_rows_and_adds_the_measured_ones():
    suite = fake_suite(3)
    frame = tables.table1(suite)
    for row in TABLE_1:
        ours = frame[frame["Method"].str.startswith(row.label)].iloc[0]
        assert ours["Reported, %"].split()[0] == str(row.percent)
    assert only(frame, "Method", "ResNet (pretrained)")["Measured, %"] == "not run"
    assert only(frame, "Method", "Origin")["Verdict"] == "agrees"
    assert only(frame, "Method", "Origin, section II")["Verdict"] == "lower"
    assert only(frame, "Method", "Fast recipe (ours)")["Reported, %"] == "—"
    dnn = only(frame, "Method", "DNN (training)")
    assert dnn["Measured, %"].startswith(f"{100 * np.mean([r.train_score.accuracy for r in suite['dnn_softmax']]):.2f}")
    assert (dnn["MiB"], dnn["MFLOPs"], dnn["Training"]) == ("9.92", "280.0", "26.7 min")


def test_results_of_other_weights_are_marked_and_explained():
    for weights in (OTHER_WEIGHTS, "torchvision IMAGENET1K_V1, sha256 f37072fd47e89c5e", ""):
        suite = fake_suite(2) | {"resnet18_pretrained": fake_records("resnet18_pretrained", 2, weights=weights)}
        note = "‡ other ImageNet weights: trained at home" if weights == OTHER_WEIGHTS else ""
        assert tables.weights_note(r for rs in suite.values() for r in rs) == note
        mark = " ‡" * bool(note)
        assert only(tables.table1(suite), "Method", f"ResNet (pretrained){mark}")["Verdict"] != "—"
        assert f"TensorFlow − ResNet, pretrained{mark}" in set(tables.paired_tests(suite)["Comparison"])
        assert f"ResNet, pretrained{mark}" in set(tables.calibration_table(suite)["Method"])
        assert any(f"ResNet, pretrained{mark} " in claim.evidence for claim in claims(suite))
        assert f"ResNet, pretrained{mark} (" in ranking(suite)
        assert "‡" not in "".join(tables.table1(fake_suite(2))["Method"])


def test_table_1_of_nothing_says_so():
    frame = tables.table1({})
    assert len(frame) >= len(TABLE_1)
    assert set(frame["Measured, %"]) == {"not run"}


def test_profiles_side_by_side():
    frame = tables.profiles_table(fake_suite(1), fake_suite(3))
    row = only(frame, "Method", "Origin")
    assert row["This run, %"].endswith("(1)")
    assert row["Reference run, %"].endswith("(3)")
    assert only(frame, "Method", "ResNet (pretrained)")["This run, %"] == "not run"


def test_neighbours_are_paired_over_gaps():
    frame = tables.paired_tests(fake_suite(3))
    assert len(frame) == len(SUITE) - 1
    assert "TensorFlow − ResNet" in set(frame["Comparison"])
    assert frame["Points"].iloc[0].startswith("+")
    assert frame["Points"].iloc[2].startswith("−")


def test_different_test_images_are_not_paired():
    suite = {"baseline": fake_records(seeds=1), "fine_tuned": fake_records("fine_tuned", 1, n_test=500)}
    assert tables.paired_tests(suite).empty
    assert tables.paired_tests({}).empty


def test_ablation_is_paired_with_the_whole_recipe():
    whole, worse = fake_records("fast94", accuracy=0.9), fake_records("fine_tuned", accuracy=0.88)
    frame = tables.ablation_table({"whole": whole, "gone": [], "worse": worse})
    assert list(frame["Recipe"]) == [whole[0].title, worse[0].title]
    assert frame["Points"].tolist() == ["—", "−2.00"]
    assert frame["p (Holm)"].iloc[1] == "< 0.001"


def test_class_changes_are_differences_of_class_accuracies():
    suite = fake_suite(2)
    frame = tables.class_changes(suite)
    before, after = (
        np.mean([r.predictions.correct[r.predictions.labels == 8].mean() for r in suite[name]])
        for name in ("baseline", "first_optimization")
    )
    row = only(frame, "Class", "ship")
    assert row["Origin"] == f"{100 * before:.1f}"
    share, change = row["First optimization"].rstrip(")").split(" (")
    assert float(share) == pytest.approx(100 * after, abs=0.051)
    assert float(change.replace("−", "-")) == pytest.approx(100 * (after - before), abs=0.051)


def test_calibration_row_by_recount():
    records = fake_records("fine_tuned", 2)
    row = tables.calibration_table({"fine_tuned": records, "baseline": []}).iloc[0]
    confidence = np.mean([r.predictions.confidence.astype(float).mean() for r in records])
    accuracy = np.mean([r.predictions.correct.mean() for r in records])
    assert row["Mean confidence"] == f"{100 * confidence:.2f} %"
    assert row["Difference, points"] == tables.signed(100 * (confidence - accuracy))


@pytest.mark.parametrize(("name", "side"), [("frozen_32", 32), ("frozen_224", 224), ("resnet18_pretrained_64", 64)])
def test_a_size_is_that_of_the_images_which_the_network_sees(name, side):
    records = [dataclasses.replace(r, recipe=UPSCALED[name].settings()) for r in fake_records(seeds=2)]
    assert tables.pixels(records) == side
    row = tables.upscaled_table({"none": [], name: records}).iloc[0]
    assert (row["Pixels a side"], row["Test accuracy, %"][-3:]) == (str(side), "(2)")


def test_errata_by_chapter_and_all():
    assert len(tables.errata_table()) == len(ERRATA)
    chapters = [tables.errata_table(f"{i:02d}") for i in range(1, 7)]
    assert sum(map(len, chapters)) == len(ERRATA)
    assert "E20" in set(chapters[3]["No."])


@pytest.mark.parametrize(("seconds", "text"), [(42.4, "42 s"), (99.4, "99 s"), (600, "10.0 min"), (9000, "2.5 h")])
def test_durations(seconds, text):
    assert tables.duration(seconds) == text


@pytest.mark.parametrize(("points", "text"), [(2.084, "+2.08"), (-4.7, "−4.70"), (-0.001, "0.00")])
def test_signs(points, text):
    assert tables.signed(points) == text


# --- imports --------------------------------------------------------------------------------------------------------


def test_reporting_needs_no_torch():
    modules = "claims, statistics, figures, tables"
    code = f"import sys; from labreport.evidence import {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
