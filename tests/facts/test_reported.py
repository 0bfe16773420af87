"""The report's numbers, recomputed where they can be, so that an erratum is a fact and not a typing mistake of ours."""

import itertools
import math
import re

import pytest

from labreport.evidence.statistics import least_cross_entropy
from labreport.facts.errata import ERRATA
from labreport.facts.reported import CIFAR10_CLASSES, RESNET_LOG_APPENDIX, RESNET_LOG_TEXT, SYSTEMS, TABLE_1

LISTED = ("baseline", "first_optimization")  # the two systems with a listing of classes
BY_ID = {erratum.id: erratum for erratum in ERRATA}


def stated(name: str, quantity: str, place: str) -> float:
    (value,) = (s.value for s in SYSTEMS[name].stated(quantity) if place in s.place)
    return value


def conv(cin: int, cout: int, side: int, bias: bool = True) -> int:
    return cout * (cin * side**2 + bias)


# --- the numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LISTED)
def test_classes_add_up_to_the_overall_accuracy(name):
    lines = SYSTEMS[name].per_class
    assert tuple(line.name for line in lines) == CIFAR10_CLASSES
    assert sum(line.correct for line in lines) / sum(line.total for line in lines) == SYSTEMS[name].statements[1].value


@pytest.mark.parametrize("name", LISTED)
def test_class_percentages_are_cut_off(name):
    for line in SYSTEMS[name].per_class:
        assert line.percent == line.correct * 100 // line.total


def test_cut_off_percentages_are_counted_right():
    lines = [line for name in LISTED for line in SYSTEMS[name].per_class]
    lowered = sum(line.percent != math.floor(100 * line.correct / line.total + 0.5) for line in lines)
    assert f"lowers {lowered} of the {len(lines)}" in BY_ID["E19"].correct


def test_printed_form_is_the_reports_own():
    assert SYSTEMS["baseline"].per_class[5].printed == "67% (678/1000)"


def test_table_1_rounds_what_the_text_states():
    exact = {"first_optimization": 0.6817, "fine_tuned": 0.7808, "resnet18": 0.6653, "deep_cnn": 0.8959}
    rows = {row.name: row for row in TABLE_1 if row.name in exact}
    assert {name: math.floor(100 * value + 0.5) for name, value in exact.items()} == {
        n: r.percent for n, r in rows.items()
    }
    for name, value in exact.items():
        assert value in [statement.value for statement in SYSTEMS[name].stated("test accuracy")]


def test_table_1_agrees_with_the_statements_that_name_it():
    for row in TABLE_1:
        places = [
            s for s in SYSTEMS[row.name].statements if "Table 1" in s.place and s.quantity.startswith(row.split[:2])
        ]
        assert [round(100 * s.value) for s in places] == [row.percent]


def test_parameters_counted_from_the_reports_code():
    dense = (64 * 4 * 4 + 1) * 500 + (500 + 1) * 10
    assert stated("fine_tuned", "parameters", "code") == conv(3, 16, 3) + conv(16, 32, 3) + conv(32, 64, 3) + dense


def test_resnet18_parameters_by_formula():
    def block(cin: int, cout: int) -> int:  # two 3×3 convolutions with their batch norms
        return conv(cin, cout, 3, False) + conv(cout, cout, 3, False) + 4 * cout

    def shortcut(cin: int, cout: int) -> int:
        return conv(cin, cout, 1, False) + 2 * cout

    widths = (64, 128, 256, 512)
    shortcuts = sum(shortcut(a, b) for a, b in itertools.pairwise(widths))
    body = conv(3, 64, 7, False) + 2 * 64 + sum(block(w // 2 if w > 64 else 64, w) + block(w, w) for w in widths)
    ours, original = body + shortcuts + 513 * 10, body + shortcuts + 513 * 1000
    assert stated("resnet18", "parameters", "code") == ours
    assert (
        f"{original:,} parameters become {ours:,}, {1 - ours / original:.1%}".replace("%", " %") in BY_ID["E40"].correct
    )
    assert f"add {shortcuts:,}" in BY_ID["E41"].correct
    assert f"{ours / 75_186:.0f} times the 75,186" in BY_ID["E39"].correct
    assert f"{ours / 541_094:.0f} times the 541,094" in BY_ID["E39"].correct


# --- the errata -----------------------------------------------------------------------------------------------------


def test_ids_are_unique_and_in_order_and_chapters_exist():
    assert [erratum.id for erratum in ERRATA] == [f"E{i}" for i in range(1, len(ERRATA) + 1)]
    assert {erratum.chapter for erratum in ERRATA} <= {"01", "02", "03", "04", "05", "06"}
    assert all(BY_ID[f"E{i}"].chapter == "01" for i in range(1, 12))


def test_the_baseline_has_two_accuracies_and_shares_one_with_the_fine_tuned_model():
    assert {s.value for s in SYSTEMS["baseline"].stated("test accuracy")} == {0.7808, 0.67}
    assert stated("fine_tuned", "test accuracy", "III B") == stated("baseline", "test accuracy", "II")


def test_size_of_the_first_optimization():
    n_bytes = 4 * 75_186
    assert f"{n_bytes:,} bytes, {n_bytes / 2**20:.2f} MiB" in BY_ID["E28"].correct
    assert round(75_186 / 2**20, 2) == stated("first_optimization", "size", "III A")


def test_changes_from_the_baseline_to_the_first_optimization():
    before, after = ({line.name: line.correct for line in SYSTEMS[name].per_class} for name in LISTED)
    fall = {name: (before[name] - after[name]) / 10 for name in before}
    assert min(fall.values()) > 0
    assert f"{fall['cat']} and {fall['bird']} points" in BY_ID["E31"].correct
    assert f"{fall['automobile']}, {fall['truck']} and {fall['ship']} points" in BY_ID["E32"].correct
    assert f"loses {7808 - 6817} images" in BY_ID["E30"].correct


def test_one_point_between_two_samples_of_ten_thousand_is_within_their_interval():
    half = 1.96 * math.sqrt(0.67 * 0.33 / 10_000 + 0.6817 * 0.3183 / 10_000)
    assert f"±{100 * half:.1f}" in BY_ID["E30"].correct
    assert 0.6817 - 0.675 < half < 0.6817 - 0.665  # of which printed like 67 %, it depends


def test_differences_between_the_two_transcripts():
    pairs = list(zip(RESNET_LOG_TEXT, RESNET_LOG_APPENDIX, strict=True))
    losses = [f"{a.epoch} ({a.loss:.4f}, {b.loss:.4f})" for a, b in pairs if a.loss != b.loss]
    assert f"loss in epochs {', '.join(losses)}; accuracy" in BY_ID["E37"].correct
    listed = re.sub(r" \([^)]*\)", "", BY_ID["E37"].correct).split("accuracy in epochs ")[1].split(".")[0]
    assert listed == ", ".join(str(a.epoch) for a, b in pairs if a.percent != b.percent)
    assert [a.epoch for a, _ in pairs] == list(range(1, 11))


@pytest.mark.parametrize("line", [*RESNET_LOG_TEXT, *RESNET_LOG_APPENDIX])
def test_no_printed_resnet_loss_can_be_a_mean_cross_entropy(line):
    assert line.loss < least_cross_entropy(line.percent / 100)


def test_the_bound_that_e20_names():
    best = max(line.percent for line in RESNET_LOG_TEXT)
    assert f"at {best} %, at least {least_cross_entropy(best / 100):.3f}" in BY_ID["E20"].correct


@pytest.mark.parametrize(("split", "bound"), [("training", "0.066"), ("validation", "0.101")])
def test_losses_of_reference_3_are_below_the_bound(split, bound):
    accuracy, loss = (SYSTEMS["dnn_softmax"].stated(f"{split} {kind}")[0] for kind in ("accuracy", "loss"))
    assert f"{least_cross_entropy(accuracy.value + accuracy.tolerance):.3f}" == bound
    assert bound in BY_ID["E50"].correct
    assert loss.value + loss.tolerance < least_cross_entropy(accuracy.value)


def test_losses_of_the_reports_own_networks_are_possible():
    for name in LISTED:
        loss, accuracy = SYSTEMS[name].statements[:2]
        assert loss.value > least_cross_entropy(accuracy.value)


def test_section_two_is_right_about_its_easiest_and_hardest_classes():
    ranked = sorted(SYSTEMS["baseline"].per_class, key=lambda line: line.correct)
    assert (ranked[0].name, ranked[-1].name) == ("cat", "ship")
    assert {line.name for line in ranked[1:4]} == {"dog", "bird", "deer"}
    assert ranked[3].percent < 80 < ranked[4].percent
