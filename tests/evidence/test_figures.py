"""What the figures show, read back from their artists; that they fit the page; and that they leave no trace behind."""

import dataclasses
import io

import matplotlib as mpl
import numpy as np
import pytest
from fake_records import answering, fake_record, fake_records, fake_suite

from labreport.evidence import figures, statistics, tables
from labreport.facts.recipes import UPSCALED
from labreport.facts.reported import RESNET_LOG_TEXT, SYSTEMS

STAND_IN = {"classes": tuple("abcdefghij"), "source": "synthetic stand-in"}
ONE_SYSTEM = {
    "curves": lambda records: figures.curves(records),
    "confusion": lambda records: figures.confusion(records),
    "per_class": lambda records: figures.per_class(records, SYSTEMS["baseline"]),
    "examples": lambda records: figures.examples(records[0]),
}
ALL_SYSTEMS = {
    "comparison": lambda suite: figures.comparison(suite, reference=suite),
    "accuracy_vs_cost": figures.accuracy_vs_cost,
    "reliability": figures.reliability,
    "class_changes": figures.class_changes,
    "ablation": figures.ablation,
    "accuracy_over_time": figures.accuracy_over_time,
    "histories": lambda suite: figures.histories(suite, RESNET_LOG_TEXT),
    "accuracy_by_size": lambda suite: figures.accuracy_by_size({"all": suite, "none": {"baseline": []}}, 0.6653),
}


def svg(figure) -> bytes:
    buffer = io.BytesIO()
    with figures.style():
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def diamonds(ax) -> list[float]:
    """Places of the reported values: the open diamonds."""
    return [x for line in ax.lines if line.get_marker() == "D" for x in line.get_xdata()]


# --- every figure ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*ONE_SYSTEM, *ALL_SYSTEMS])
def test_figures_fit_the_page(name):
    if name in ONE_SYSTEM:
        figure = ONE_SYSTEM[name](fake_records(seeds=2, epochs=5, n_test=500))
    else:
        figure = ALL_SYSTEMS[name](fake_suite(seeds=1, epochs=5, n_test=500))
    with figures.style():
        box = figure.get_tightbbox()
    assert figure.get_size_inches()[0] == figures.WIDTH
    assert box.x0 > -0.05
    assert box.x1 < figures.WIDTH + 0.05
    assert box.y0 > -0.05
    assert box.y1 < figure.get_size_inches()[1] + 0.05


@pytest.mark.parametrize("dpi", [72, 200])
def test_text_is_as_wide_at_every_resolution(dpi):
    figure = figures.comparison(fake_suite(seeds=1))
    with figures.style():
        measured = figure.get_tightbbox().extents
        figure.set_dpi(dpi)
        assert figure.get_tightbbox().extents == pytest.approx(measured, abs=0.01)


@pytest.mark.parametrize("name", [*ONE_SYSTEM, *ALL_SYSTEMS])
def test_the_same_records_give_the_same_svg(name):
    def draw() -> bytes:
        if name in ONE_SYSTEM:
            return svg(ONE_SYSTEM[name](fake_records(seeds=2, epochs=5, n_test=500)))
        return svg(ALL_SYSTEMS[name](fake_suite(seeds=2, epochs=5, n_test=500)))

    assert draw() == draw()


def test_nothing_is_left_behind():
    before = dict(mpl.rcParams)
    for draw in ONE_SYSTEM.values():
        draw(fake_records(seeds=2, epochs=3))
    figures.class_changes(fake_suite(seeds=1))
    assert dict(mpl.rcParams) == before
    pyplot = pytest.importorskip("matplotlib.pyplot")
    assert pyplot.get_fignums() == []


@pytest.mark.parametrize("name", ["curves", "confusion", "per_class"])
def test_no_record_is_a_clear_error(name):
    with pytest.raises(ValueError, match="no record"):
        ONE_SYSTEM[name]([])


@pytest.mark.parametrize("name", ["accuracy_vs_cost", "reliability", "class_changes"])
def test_no_records_at_all_is_a_clear_error(name):
    with pytest.raises(ValueError, match="no records"):
        ALL_SYSTEMS[name]({"baseline": []})


# --- one system -----------------------------------------------------------------------------------------------------


def test_curves_show_the_mean_and_the_range_of_the_seeds():
    records = fake_records(seeds=3, epochs=30)
    _, right = figures.curves(records).axes
    accuracies = 100 * np.array([[row.val_accuracy for row in record.history] for record in records])
    (validation,) = (line for line in right.lines if line.get_color() == figures.BLUE and len(line.get_xdata()))
    assert np.allclose(validation.get_ydata(), accuracies.mean(axis=0))
    band = right.collections[-1].get_paths()[0].vertices
    for epoch in (1, 15, 30):
        ends, seeds = band[band[:, 0] == epoch, 1], accuracies[:, epoch - 1]
        assert (ends.min(), ends.max()) == pytest.approx((seeds.min(), seeds.max()))


def test_a_single_epoch_is_visible():
    left, _ = figures.curves([fake_record(epochs=1)]).axes
    assert {line.get_marker() for line in left.lines if line.get_label() in ("training", "validation")} == {"o"}


def test_confusion_shows_mean_counts():
    records = fake_records(seeds=2, n_test=1000)
    ax = figures.confusion(records).axes[0]
    cats = np.mean([(r.predictions.correct & (r.predictions.labels == 3)).sum() for r in records])
    (shown,) = (text.get_text() for text in ax.texts if text.get_position() == (3.5, 3.5))
    assert shown == f"{cats:.0f}"


def test_dots_stand_at_the_measured_shares_and_their_bars_at_the_ends_of_the_intervals():
    records = fake_records(seeds=3, n_test=1000)
    (ax,) = figures.per_class(records).axes
    correct, total = tables.class_counts(records)
    dots, *bars = ax.lines
    assert dots.get_xdata() == pytest.approx(100 * correct.mean(axis=0) / total)
    assert [label.get_text() for label in ax.get_yticklabels()] == list(records[0].data.classes)
    for k, bar in enumerate(bar for bar in bars if len(bar.get_xdata())):
        low, high, _ = statistics.next_accuracy(correct[:, k].tolist(), int(total[k]))
        assert (np.nanmin(bar.get_xdata()), np.nanmax(bar.get_xdata())) == pytest.approx((100 * low, 100 * high))


def test_reported_classes_are_drawn_for_cifar10_only():
    (ax,) = figures.per_class(fake_records(seeds=2), SYSTEMS["baseline"]).axes
    assert diamonds(ax) == [100 * line.correct / line.total for line in SYSTEMS["baseline"].per_class]
    (ax,) = figures.per_class(fake_records(seeds=2, **STAND_IN), SYSTEMS["baseline"]).axes
    assert diamonds(ax) == []


def test_reported_classes_are_drawn_beside_their_names_whatever_their_order():
    listing = SYSTEMS["baseline"]
    turned = dataclasses.replace(listing, per_class=listing.per_class[::-1])
    (a,), (b,) = (figures.per_class(fake_records(seeds=2), system).axes for system in (listing, turned))
    assert diamonds(a) == diamonds(b)


def test_examples_name_true_and_predicted_class_and_confidence():
    record = fake_record()
    titles = [ax.get_title() for ax in figures.examples(record).get_axes() if ax.images]
    seen = record.predictions
    assert len(titles) == len(seen.example_images)
    for title, place in zip(titles, seen.example_indices, strict=True):
        true, called = record.data.classes[seen.labels[place]], record.data.classes[seen.predicted[place]]
        names = true if true == called else f"{true}\n{called}"
        assert title == f"{names}\n{100 * seen.confidence[place]:.1f} %"


def test_examples_of_a_perfect_network_and_of_one_without_images():
    perfect = figures.examples(fake_record(accuracy=1.0))
    assert [part.get_suptitle() for part in perfect.subfigs] == ["Right: class and confidence"]
    record = fake_record()
    empty = dataclasses.replace(record.predictions, example_images=np.empty((0, 3, 32, 32), np.uint8))
    with pytest.raises(ValueError, match="keeps no example images"):
        figures.examples(dataclasses.replace(record, predictions=empty))


# --- all systems ----------------------------------------------------------------------------------------------------


def test_comparison_has_a_row_for_everything_and_says_what_was_not_run():
    suite = fake_suite(1)
    (ax,) = figures.comparison(suite).axes
    rows = tables.comparison_rows(suite)
    assert [label.get_text() for label in ax.get_yticklabels()] == [row.label for row in rows]
    assert texts(ax) == ["not run"]
    assert sorted(diamonds(ax)) == sorted(100 * row.statement.value for row in rows if row.statement)


def test_comparison_of_nothing_still_shows_what_is_reported():
    (ax,) = figures.comparison({}).axes
    assert set(texts(ax)) == {"not run"}


def test_class_changes_shows_shares_and_their_differences():
    suite = fake_suite(1)
    ax = figures.class_changes(suite).axes[0]
    frame = tables.class_changes(suite)
    assert texts(ax) == frame.iloc[:, 1:].to_numpy().ravel().tolist()


def test_reliability_writes_the_calibration_error():
    suite = {"baseline": fake_records(seeds=2), "fine_tuned": fake_records("fine_tuned", seeds=1)}
    errors = tables.calibration_table(suite)["Calibration error"]
    for ax, error in zip(reliability_axes(suite), errors, strict=True):
        assert ax.get_title().endswith(f"\nerror {float(error.split()[0]):.1f} %")


def test_reliability_leaves_out_bins_with_hardly_an_image():
    record = fake_record(n_test=2000)
    confidence = np.full(2000, 0.9, np.float32)
    confidence[: figures.FEWEST_ANSWERS - 1] = 0.2
    seen = answering(record.predictions, confidence=confidence)
    (ax,) = reliability_axes({"baseline": [dataclasses.replace(record, predictions=seen)]})
    assert len(ax.patches) == 1
    assert ax.patches[0].get_x() > 80


@pytest.mark.parametrize(("low", "high"), [(2e13, 3e14), (1.1e14, 8e14), (5e4, 1e7), (1e3, 1e12)])
def test_costs_have_three_labelled_ticks_or_more(low, high):
    cheap, dear = (
        [dataclasses.replace(record, parameters=int(cost), train_flops=int(cost)) for record in fake_records(name)]
        for name, cost in (("baseline", low), ("resnet18", high))
    )
    for ax in figures.accuracy_vs_cost({"baseline": cheap, "resnet18": dear}).axes:
        least, most = ax.get_xlim()
        labels = [text.get_text() for text in ax.get_xticklabels() if least <= text.get_position()[0] <= most]
        assert 3 <= len(labels) <= 12
        assert all(labels)


@pytest.mark.parametrize("name", ["confusion", "examples"])
def test_pictures_of_small_text_are_not_shrunk_on_the_page(name):
    height = ONE_SYSTEM[name](fake_records(seeds=2, n_test=500)).get_figheight()
    assert height < 4.05  # the page gives a picture 106 mm, the caveat's line among them


def reliability_axes(suite):
    return [ax for ax in figures.reliability(suite).axes if ax.get_visible()]


def test_two_systems_in_one_picture_beside_the_reports_log():
    suite = {name: fake_records(name, 3, epochs=10) for name in ("resnet18", "resnet18_pretrained")}
    left, right = figures.histories(suite, RESNET_LOG_TEXT).axes
    means = [np.mean([[row.val_accuracy for row in r.history] for r in records], axis=0) for records in suite.values()]
    drawn = [line.get_ydata() for line in right.lines if len(line.get_ydata()) == 10]
    np.testing.assert_allclose(drawn[:2], 100 * np.array(means))
    np.testing.assert_allclose(drawn[-1], [line.percent for line in RESNET_LOG_TEXT])
    assert right.get_legend() is None and left.get_ylabel().startswith("validation loss")


def test_accuracy_by_size_draws_each_networks_sizes_in_order():
    suite = {
        name: [dataclasses.replace(r, recipe=UPSCALED[name].settings()) for r in fake_records(accuracy=share)]
        for name, share in (("frozen_128", 0.8), ("frozen_32", 0.6), ("resnet18_pretrained_64", 0.7))
    }
    frozen = {name: suite[name] for name in ("frozen_128", "frozen_32")}
    whole = {"resnet18_pretrained_64": suite["resnet18_pretrained_64"]}
    (ax,) = figures.accuracy_by_size({"frozen": frozen, "whole": whole}, 0.6653).axes
    first, second = (bars[0] for bars in ax.containers)
    np.testing.assert_allclose(first.get_xydata(), [(32, 60), (128, 80)])
    np.testing.assert_allclose(second.get_xydata(), [(64, 70)])
