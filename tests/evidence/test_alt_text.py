"""What a figure's alternative text says, against what was drawn."""

import re

import numpy as np
import pytest
from fake_records import fake_record, fake_suite
from matplotlib.figure import Figure

from labreport.evidence import figures, statistics
from labreport.evidence.alt_text import describe


def drawn(draw):
    figure = Figure()
    draw(figure.subplots())
    figure.draw_without_rendering()
    return describe(figure)


def test_a_curve_is_told_by_its_ends_and_extremes():
    def draw(ax):
        ax.plot(range(1, 11), [5, 4, 3, 2, 1, 2, 3, 4, 6, 3], label="loss")
        ax.set(xlabel="epoch", ylabel="nats", title="A run")

    assert drawn(draw) == "A run, nats against epoch: loss: from 5 at 1 to 3 at 10, lowest 1 at 5, highest 6 at 9."


def test_bars_are_told_by_the_names_on_their_axis():
    def draw(ax):
        ax.barh([0, 1], [0.25, 0.75])
        ax.set_yticks([0, 1], ["cat", "dog"])

    assert drawn(draw) == "Cat 0.25, dog 0.75."


def test_a_picture_and_an_empty_figure():
    assert drawn(lambda ax: (ax.imshow(np.zeros((3, 3))), ax.set_title("a plane"))) == "Picture: a plane."
    assert drawn(lambda ax: None) == "An empty figure."


def test_a_confusion_matrix_is_told_by_its_diagonal_and_its_largest_confusions():
    record = fake_record("baseline")
    counts = statistics.confusion(record.predictions.labels, record.predictions.predicted, 10)
    classes = record.data.classes
    said = describe(figures.confusion([record]))
    for k, name in enumerate(classes):
        assert f"{name} {counts[k, k]}" in said
    others = counts - np.diag(np.diag(counts))
    assert re.search(r"beside it most: (\w+) as (\w+) (\d+)", said)[3] == str(others.max())


def test_the_comparison_says_every_system_with_its_interval():
    suite = fake_suite(seeds=2)
    said = describe(figures.comparison(suite))
    for name in ("baseline", "fine_tuned"):
        measured = statistics.measure(suite[name], "test accuracy")
        low, high = (f"{100 * x:.3g}" for x in measured.one_training[:2])
        assert f"{100 * measured.value:.3g} ({low} to {high})" in said
    assert "reported: " in said


@pytest.mark.parametrize("draw", [figures.accuracy_vs_cost, figures.reliability, figures.class_changes])
def test_every_figure_of_all_systems_says_numbers(draw):
    said = describe(draw(fake_suite(seeds=2)))
    assert sum(character.isdigit() for character in said) > 20
    assert "nan" not in said
