"""The benchmark: its arithmetic by hand, its two loops against each other, its table, and one tiny round."""

import dataclasses
import json
import multiprocessing
import os
import time

import pytest
import torch
from faults import processes

from labreport.bench import appendix, bench
from labreport.bench.bench import Bench, Row
from labreport.facts.recipes import RECIPES
from labreport.images import augment
from labreport.images import cifar10 as data
from labreport.training.run import DeviceSplit

CPU = torch.device("cpu")


def row(*values, goal=None, at_least=True) -> Row:
    return Row("name", "what", values, "×", "ours 3, theirs 1", goal, at_least)


def tiny(folder, **changes) -> Bench:
    return dataclasses.replace(Bench(CPU, folder, rounds=1, seconds=0.01, n_images=400), **changes)


# --- arithmetic ------------------------------------------------------------------------------------------------------


def test_median_and_spread():
    assert row(3.0, 1.0, 8.0).median == 3.0
    assert row(3.0, 1.0, 8.0, 4.0).median == 3.5
    written = row(3.0, 1.0, 8.0, goal=2.0).as_json()
    assert (written["median"], written["min"], written["max"], written["met"]) == (3.0, 1.0, 8.0, True)


def test_goals_from_below_and_from_above():
    assert row(2.0, goal=2.0).met is True
    assert row(1.9, 1.9, 9.0, goal=2.0).met is False  # the median counts, not the best round
    assert row(3.0, goal=3.0, at_least=False).met is True
    assert row(3.1, goal=3.0, at_least=False).met is False
    assert row(3.0).met is None
    assert row(goal=2.0).met is None


def test_rates_are_images_a_second_and_rounds_are_interleaved(tmp_path):
    order = []
    sides = [lambda: order.append("ours") or 6.0, lambda: order.append("theirs") or 2.0]
    assert tiny(tmp_path, rounds=3).interleave(*sides) == [(6.0, 2.0)] * 3
    assert order == ["ours", "theirs"] * 3
    rate = bench._rate(lambda images: time.sleep(0.05), 10)
    assert 20 < rate <= 200


@pytest.mark.parametrize("seconds_per_image", [1e-4, 1e-3])
def test_paced_rounds_take_about_the_wanted_time(tmp_path, seconds_per_image):
    asked = []

    def run(images: int) -> None:
        asked.append(images)
        time.sleep(images * seconds_per_image)

    side = tiny(tmp_path, seconds=0.1, n_images=10_000).paced(run, 10)
    side()
    assert asked[-1] % 10 == 0
    assert 0.1 < asked[-1] * seconds_per_image / 0.1 <= 1.0  # less where sleep oversleeps


def test_paced_rounds_have_at_least_one_batch_and_at_most_all_images(tmp_path):
    asked = []
    tiny(tmp_path, seconds=1e-9).paced(asked.append, 64)()
    tiny(tmp_path, seconds=1e9).paced(asked.append, 64)()
    assert min(asked) == 64 and max(asked) <= 400 and asked[-1] == 384


def test_matmul_rate_is_plausible():
    assert 1e8 < bench.matmul_flops(torch.float32, CPU, 0.01) < 1e15


# --- the two loops ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["baseline", "resnet18"])
def test_both_loops_see_the_same_pixels(name):
    """Without augmentation the per-image transforms and the batched gather give the same numbers."""
    recipe, images = RECIPES[name], data.synthetic(20, 1, 1).train
    theirs = appendix.ImageDataset(images, appendix.transform_for(recipe))
    ours = augment.normalize(images.images, recipe.normalization)
    for i in (0, 7, 19):
        inputs, label = theirs[i]
        torch.testing.assert_close(inputs, ours[i], rtol=0, atol=1e-6)
        assert label == images.labels[i]


def test_the_appendix_loop_augments_as_the_recipe_does():
    """Every image it makes of one picture is a shift by at most 2 pixels, reflected, of it or its mirror image."""
    recipe = dataclasses.replace(RECIPES["fine_tuned"], translate=2)
    images = data.synthetic(1, 1, 1).train
    dataset = appendix.ImageDataset(images, appendix.transform_for(recipe))
    normal = augment.normalize(images.images, recipe.normalization)
    padded = torch.nn.functional.pad(torch.cat([normal, normal.flip(3)]), (2, 2, 2, 2), "reflect")
    possible = torch.stack([padded[:, :, y : y + 32, x : x + 32] for y in range(5) for x in range(5)]).flatten(0, 1)
    torch.manual_seed(0)
    distances = torch.stack([(possible - dataset[0][0]).abs().amax((1, 2, 3)) for _ in range(60)])
    assert distances.amin(1).max() < 1e-5
    assert len(distances.argmin(1).unique()) > 20  # of 50


def test_both_loops_reach_the_same_weights():
    """Ten images in batches of ten: with nothing left to chance, two steps of either loop end in the same network."""
    recipe, loaded = RECIPES["baseline"], data.synthetic(10, 1, 1)
    ours = bench.OurLoop(recipe, DeviceSplit.of(loaded.train, CPU), CPU)
    theirs = appendix.AppendixLoop(recipe, loaded.train, 0, CPU)
    start = [weights.clone() for weights in theirs.model.parameters()]
    for loop in (ours, theirs):
        loop.run(10)
        loop.run(10)
    for mine, other, before in zip(ours.state.model.parameters(), theirs.model.parameters(), start, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-6)
        assert not torch.equal(other, before)


# --- other processes -------------------------------------------------------------------------------------------------


def test_waiting_time_and_memory_on_files_of_the_official_size(tmp_path):
    files = tiny(tmp_path).files
    assert 0 < bench.first_batch_seconds(files, CPU) < 60
    peak, imported, size = bench.training_memory("baseline", files, CPU)
    assert size == 60_000 * (3 * 32 * 32 + 8)  # a byte a colour, eight a label
    assert peak > size and imported > 0


def peak_after(mib: int) -> int:
    bytearray(mib * 2**20)  # zeroed, so it is really taken; and given back at once
    return bench.peak_memory()


def test_peak_memory_is_this_process_own():
    """Not the parent's, which the kernel's `ru_maxrss` would start from."""
    ballast = bytearray(600 * 2**20)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        child, grown = pool.apply(bench.peak_memory), pool.apply(peak_after, (200,))
    assert bench.peak_memory() > len(ballast)
    assert child < 500 * 2**20
    assert grown - child > 150 * 2**20


# --- table, JSON, choice of rows -------------------------------------------------------------------------------------


def test_table_lines():
    line = " ".join(bench.table_line(row(3.0, 2.5, 8.0, goal=2.0)).split())
    assert line == "name 3.00 × [2.50, 8.00] ≥ 2 yes ours 3, theirs 1"
    assert " NO " in bench.table_line(row(1.0, goal=2.0))
    assert bench.table_line(row(1.0, goal=2.0, at_least=False)).split()[1:6] == ["1.00", "×", "≤", "2", "yes"]
    assert bench.table_line(row(goal=2.0)).split()[:5] == ["name", "–", "≥", "2", "–"]


def test_rows_are_chosen_by_name_or_pattern():
    assert bench.chosen(None) == list(bench.ROWS)
    assert bench.chosen(["import", "train-*"])[-1] == "import"
    assert {name.partition("-")[0] for name in bench.chosen(["train-*"])} == {"train"}
    with pytest.raises(ValueError, match=r"'speed'.*train-baseline"):
        bench.chosen(["speed"])


def test_main_prints_a_table_and_writes_json(tmp_path, capsys, forked):
    bench.main(tmp_path / "bench.json", ["train-baseline", "flops-fine_tuned"], rounds=2, seconds=0.01, n_images=400)
    lines = capsys.readouterr().out.splitlines()
    assert torch.__version__ in lines[0]
    assert [line.split()[0] for line in lines[-3:]] == ["row", "train-baseline", "flops-fine_tuned"]
    written = json.loads((tmp_path / "bench.json").read_text())
    conditions = {"date", "machine", "cores", "threads", "torch", "rounds", "load_average"}
    assert conditions <= set(written["conditions"])
    assert written["conditions"]["rounds"] == 2
    for measured in written["rows"]:
        assert len(measured["values"]) == 2
        assert 0 < measured["min"] <= measured["median"] <= measured["max"]


def test_import_row_is_measured_in_a_fresh_interpreter(tmp_path):
    measured = bench.import_row(tiny(tmp_path))
    assert measured.detail == "without torch"
    assert len(measured.values) == 1 and measured.values[0] > 0


def test_report_row_says_when_there_are_no_records(tmp_path, monkeypatch):
    monkeypatch.setattr(bench.paths, "REPOSITORY", tmp_path)
    measured = bench.report_row(tiny(tmp_path))
    assert measured.values == () and measured.detail == "no records in figures/paper/records"


def test_a_loop_has_a_process_that_starts_from_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])  # as on Windows
    with bench.LoopProcess(bench.OurLoop, RECIPES["baseline"], tiny(tmp_path).split, CPU) as loop:
        loop.run(20)  # returns when the other side has answered


@pytest.fixture
def forked():
    """The loops' processes are forked from the one that other tests' are, so that torch is loaded once."""
    processes.ensure_server()


def test_seeds_train_side_by_side(tmp_path, forked):
    measured = bench.seeds_row("baseline", 2, 3.0, tiny(tmp_path))
    assert len(measured.values) == 1 and measured.values[0] > 0
    assert measured.detail.startswith("2 seeds at once")


def test_a_slow_row_begins_no_other_round(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "ROW_SECONDS", 0.0)
    assert tiny(tmp_path, rounds=3).interleave(lambda: 6.0, lambda: 2.0) == [(6.0, 2.0)]


def test_a_goal_that_presumes_bf16_is_not_held_against_a_machine_without():
    without = dataclasses.replace(row(0.2, goal=0.6), presumes="bf16")
    assert without.met is None
    assert "≥ 0.6 with bf16" in bench.table_line(without) and "NO" not in bench.table_line(without)


def test_the_quick_row_sets_forecasts_beside_trainings(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "FORECAST", ("fine_tuned",))
    monkeypatch.setattr(bench, "training_seconds", lambda *_: 1e4)
    before = os.environ["LABREPORT_HOME"]
    quick = bench.quick_row(tiny(tmp_path))
    assert quick.median > 1.5 and quick.met is False  # far faster than that forecast, which is as wrong as far slower
    assert quick.detail.startswith("seconds predicted → measured: fine_tuned 10000.0 → ")
    assert os.environ["LABREPORT_HOME"] == before
