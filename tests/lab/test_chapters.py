"""What the chapters say in words, recounted from the records."""

import dataclasses
import re

import numpy as np
from fake_records import FAKE_MACHINE, answering, fake_records, fake_suite

from labreport import Lab
from labreport.facts.recipes import UPSCALED
from labreport.lab import chapters


def test_the_conclusion_ranks_every_system_and_lists_every_claim(tmp_path, monkeypatch):
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path))
    text = chapters.conclusion(Lab.open("paper"), fake_suite(2))
    ranking = [float(x) for x in re.findall(r"\((\d+\.\d+) %\)", text.split("\n")[0])]
    assert ranking == sorted(ranking, reverse=True)
    assert len(ranking) == len([records for records in fake_suite(1).values() if records])
    hold, fail, undecided = map(int, re.search(r"(\d+) hold, (\d+) do not, (\d+) stay", text).groups())
    assert text.count("**holds**") == hold
    assert text.count("**does not hold**") == fail
    assert text.count("**undecided**") == undecided
    assert chapters.conclusion(Lab.open("paper"), {"baseline": []}).startswith("No system was run")


def test_the_class_that_gains_most_is_named_with_its_gain():
    before = fake_records(accuracy=0.7)
    cats = before[0].predictions.labels == 3

    def with_all_cats_right(record):
        predicted = np.where(cats, record.predictions.labels, record.predictions.predicted)
        return dataclasses.replace(record, predictions=answering(record.predictions, predicted=predicted))

    after = [with_all_cats_right(record) for record in before]
    gain = 100 * (1 - np.mean([record.predictions.correct[cats].mean() for record in before]))
    said = chapters.class_findings({"baseline": before, "first_optimization": [], "fine_tuned": after})
    assert f"most cat +{gain:.1f} points" in said
    assert " 0.0 points" in said  # every other class is as it was


def test_calibration_in_words():
    records = fake_records("fine_tuned", 2)
    sure = np.mean([record.predictions.confidence.astype(float).mean() for record in records])
    right = np.mean([record.predictions.correct.mean() for record in records])
    said = chapters.calibration_findings({"fine_tuned": records})
    side = "too sure" if sure > right else "not sure enough"
    assert f"{100 * sure:.2f} % sure" in said
    assert f"{100 * abs(sure - right):.1f} points {side}" in said


def test_equal_time_compares_the_epochs_that_were_over():
    """Forty epochs of 30 s against eighty of 20 s: after 1,200 s the second has done sixty."""
    slow, fast = fake_records("resnet18", 1, epochs=40), fake_records("fast94", 1, epochs=80)
    slow = [dataclasses.replace(slow[0], seconds=1200.0)]
    rows = tuple(dataclasses.replace(row, seconds=20.0) for row in fast[0].history)
    fast = [dataclasses.replace(fast[0], history=rows, seconds=1600.0)]
    said = chapters.equal_time(slow, fast)
    assert "20.0 min" in said
    assert f"{100 * slow[0].history[39].val_accuracy:.2f} %" in said
    assert f"{100 * fast[0].history[60].val_accuracy:.2f} %" in said  # 61 epochs are within the two percent allowed


def test_the_peak_of_a_training_is_its_best_validated_epoch():
    (record,) = fake_records("baseline", 1)
    accuracies = [row.val_accuracy for row in record.history]
    said = chapters.peak([record])
    assert f"epoch {np.argmax(accuracies) + 1} ({100 * max(accuracies):.2f} %)" in said
    assert f"{100 * accuracies[-1]:.2f} % after epoch {len(accuracies)}" in said


def test_systems_are_compared_after_as_many_epochs_as_the_shorter_one_has():
    long, short = fake_records("baseline", 2, epochs=60), fake_records("first_optimization", 3, epochs=20)
    said = chapters.at_equal_epochs(long, short)
    then = 100 * np.mean([record.history[19].val_accuracy for record in long])
    assert said.startswith("After 20 epochs")
    assert f"{then:.2f} %" in said and "(60 epochs in all, n = 2)" in said
    assert "not run" in chapters.at_equal_epochs(long, [])


def test_a_system_that_was_not_run_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path))
    said = chapters.finding(Lab.open("paper"), [], "resnet18_pretrained")
    assert said == "ResNet-18, pretrained was not run here."


def test_a_finding_names_every_machine_and_all_its_seeds(tmp_path, monkeypatch):
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path))
    first, *others = fake_records("fine_tuned", 5)
    other = dataclasses.replace(FAKE_MACHINE, device="Another processor")
    moved = dataclasses.replace(first, stretches=(dataclasses.replace(first.stretches[0], environment=other),))
    said = chapters.finding(Lab.open("paper"), [moved, *others])
    assert "5 runs, seeds 0 to 4" in said and "a run on Another processor and A processor." in said


def test_the_reports_number_lies_where_it_does():
    near, far = fake_records("resnet18", accuracy=0.70), fake_records("resnet18_pretrained", accuracy=0.80)
    said = chapters.beside_the_report(near, far)
    assert "66.53%" in said
    assert "lies 13.47 points below the 80.00" in said and "3.47 points below the 70.00" in said
    assert said.endswith("nearer to the training from random weights.")
    said = chapters.beside_the_report(far, fake_records("resnet18_pretrained", accuracy=0.6655))
    assert "lies where one more training may lie, beside the 66.55" in said and "from ImageNet weights." in said
    stand_in = fake_records("resnet18", classes=tuple("abcdefghij"), source="synthetic stand-in")
    assert "did not see" in chapters.beside_the_report(stand_in, stand_in)


def test_what_larger_images_gain_is_a_share_of_the_errors():
    sizes = {"frozen_32": 0.6, "frozen_64": 0.7, "frozen_128": 0.9}
    by_size = {
        name: [dataclasses.replace(r, recipe=UPSCALED[name].settings()) for r in fake_records(accuracy=share)]
        for name, share in sizes.items()
    }
    said = chapters.stem_loss(by_size)
    assert "60.00 % → 90.00 %, +30.00 points" in said and "a net 75 % fewer errors than at 32 pixels" in said
    assert chapters.stem_loss({"frozen_32": by_size["frozen_32"], "frozen_64": []}) == ""


def test_what_pretraining_buys_needs_both_trainings(tmp_path, monkeypatch):
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path))
    said = []
    monkeypatch.setattr(Lab, "say", lambda lab, text: said.append(text))
    chapters.pretraining(Lab.open("paper"), fake_records("resnet18"), [])
    chapters.upscaled(Lab.open("paper"))
    assert ["not run" in text for text in said] == [True, True]


def test_times_are_compared_on_one_machine_and_images():
    """Of each system the seeds from the kind of machine, threads and images that most systems have."""
    other = dataclasses.replace(FAKE_MACHINE, device="Another processor")

    def moved(record, *environments):
        stretches = tuple(dataclasses.replace(record.stretches[0], environment=e) for e in environments)
        return dataclasses.replace(record, stretches=stretches)

    a, b, c = (fake_records(name, 2) for name in ("baseline", "resnet18", "fast94"))
    runs = {
        "baseline": [moved(a[0], other), a[1]],
        "resnet18": [moved(b[0], FAKE_MACHINE, other), b[1]],  # went on elsewhere
        "fast94": [moved(record, other) for record in c],
        "deep_cnn": fake_records("deep_cnn", 1),
        "fast94_short": fake_records("fast94_short", fingerprint="fedcba9876543210"),
    }
    assert chapters.on_one_machine(runs) == {
        "baseline": [a[1]],
        "resnet18": [b[1]],
        "deep_cnn": runs["deep_cnn"],
    }
    assert chapters.on_one_machine({"baseline": []}) == {}
