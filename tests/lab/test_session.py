"""A session's parameters, its records, and the files that showing leaves."""

import base64
import dataclasses
import re
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from fake_records import OTHER_WEIGHTS, fake_record, fake_records, make_record
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from labreport import paths
from labreport.facts.recipes import ABLATIONS, RECIPES
from labreport.lab import chapters
from labreport.lab.session import Lab, images_by_kin
from labreport.records.record import run_key
from labreport.records.store import Store
from labreport.training.identity import network_of


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path))
    for name in ("LABREPORT_DATA", "LABREPORT_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def displayed(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    return shown


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"profile": "fast"}, r"'fast'.*smoke, quick, paper"),
        ({"seed": -1}, r"seed -1"),
        ({"seed": "one"}, r"seed 'one'"),
        ({"data_dir": "/nowhere/at/all"}, r"/nowhere/at/all.*CIFAR-10"),
        ({"device": "abacus"}, r"'abacus'.*cpu"),
    ],
)
def test_bad_parameters_are_told_with_the_way_out(parameters, words):
    with pytest.raises(ValueError, match=words):
        Lab.open(**parameters)


def test_parameters_fall_back_to_the_environment(monkeypatch, tmp_path):
    assert Lab.open().profile == "quick"
    monkeypatch.setenv("LABREPORT_PROFILE", "smoke")
    monkeypatch.setenv("LABREPORT_DATA", str(tmp_path))
    assert (Lab.open().profile, Lab.open().data_dir) == ("smoke", tmp_path.resolve())
    assert Lab.open(profile="paper").profile == "paper"


def test_training_by_name_is_stored_and_found_again():
    lab = Lab.open("smoke")
    (record,) = lab.train("baseline")
    assert lab.records()["baseline"] == [record]
    assert lab.records()["fine_tuned"] == []
    assert record.data.source == "synthetic stand-in"
    assert "synthetic stand-in" in lab.caveat
    with pytest.raises(ValueError, match=r"'vgg'.*baseline"):
        lab.train("vgg")


def test_a_recipe_of_ones_own():
    mine = dataclasses.replace(RECIPES["baseline"], name="mine", optimizer="adam", lr=1e-3)
    (record,) = Lab.open("smoke").train(mine)
    assert record.name == "mine"
    assert record.recipe["optimizer"] == "adam"


def test_weights_that_cannot_be_had_leave_a_line_and_the_suite_goes_on(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("LABREPORT_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    lab = Lab.open("smoke")
    assert lab.train("resnet18_pretrained") == []
    assert "resnet18-f37072fd" in lab.missing["resnet18_pretrained"]
    assert "resnet18_pretrained: not run" in capsys.readouterr().out


def test_paper_reports_stored_records_and_trains_nothing(capsys):
    record = make_record()
    Store(paths.records("paper")).save(record)
    Store(paths.records("paper")).save(make_record(7))
    stand_in = dataclasses.replace(record.data, source="synthetic stand-in")
    Store(paths.records("paper")).save(make_record(8, data=stand_in))
    lab = Lab.open("paper")
    assert [r.seed for r in lab.train("baseline")] == [0, 7]
    assert lab.caveat == ""
    assert lab.train("fine_tuned") == []
    assert "fine_tuned: not run" in capsys.readouterr().out


def test_show_saves_and_displays_with_caption_and_caveat(displayed):
    lab = Lab.open("smoke")
    figure, axes = plt.subplots()
    axes.plot([1, 2])
    lab.show(figure, "line", "A < line.")
    html = displayed[0].data
    assert html.startswith('<figure id="fig:line">')
    assert '<figcaption><b class="number">Figure 1.</b> A &lt; line.</figcaption>' in html
    assert paths.figures("smoke").joinpath("line.svg").read_text().count("<svg") == 1
    assert figure.texts[0].get_text() == lab.caveat
    assert not plt.get_fignums()


def test_table_saves_csv_and_markdown_and_displays_a_caption(displayed):
    frame = pd.DataFrame({"class": ["cat"], "accuracy": ["59% (592/1000)"]})
    Lab.open("smoke").table(frame, "classes", "Accuracy by class")
    folder = paths.figures("smoke")
    pd.testing.assert_frame_equal(pd.read_csv(folder / "classes.csv"), frame)
    assert "| cat" in (folder / "classes.md").read_text()
    html = displayed[0].data
    assert html.startswith(
        '<table id="tbl:classes"><caption><b class="number">Table 1.</b> Accuracy by class (synthetic'
    )
    assert html.count("<table") == html.count("</table>") == 1


def test_figures_and_tables_are_numbered_in_their_chapter_and_keep_their_numbers(displayed):
    """Also when a cell is run again, and by sessions that speak of other records."""
    lab, frame = Lab.open("smoke", chapter=3), pd.DataFrame({"n": [1]})
    for session, name in ((lab, "a"), (lab.about([]), "b"), (lab, "a")):
        session.table(frame, name, "Counts")
    lab.show(plt.figure(), "a", "A line.")
    assert [re.search(r'"number">(.*?)\.</b>', shown.data)[1] for shown in displayed] == [
        "Table 3.1",
        "Table 3.2",
        "Table 3.1",
        "Figure 3.1",
    ]


def test_columns_of_words_are_left_aligned_and_numbers_are_not(displayed):
    frame = pd.DataFrame({"what": ["a <td>", "b"], "percent": ["59% (592/1000)", "–"], "n": [1, 2]}, index=["x", "y"])
    Lab.open("smoke").table(frame, "aligned", "Alignment", index=True)
    rows = re.findall("<tr.*?</tr>", displayed[0].data, flags=re.DOTALL)
    assert ["left" in cell for row in rows for cell in re.findall("<t[dh][^>]*>", row)] == [
        True,
        True,
        False,
        False,
    ] * 3


def test_what_bears_the_mark_of_other_weights_is_explained(displayed):
    """On the figure, in the table's caption and under the finding; what does not bear it is left as it is."""
    Store(paths.records("paper")).save(fake_record("resnet18_pretrained", weights=OTHER_WEIGHTS))
    lab = Lab.open("paper")
    records = lab.train("resnet18_pretrained")
    chapters.results(lab, records)
    lab.say(chapters.finding(lab, records))
    lab.table(pd.DataFrame({"Method": ["Origin"]}), "other", "Another table")
    note = "‡ other ImageNet weights: trained at home"
    *marked, finding, other = [each.data for each in displayed]
    assert "ResNet-18, pretrained ‡" in finding and note in finding
    assert "‡" not in other
    assert all("ResNet-18, pretrained ‡" in text for text in marked)
    written = [path.read_text() for path in paths.figures("paper").glob("resnet18_pretrained-*.md")]
    assert len(written) == 2 and all(note in text for text in written)


def test_a_report_is_of_the_images_that_most_recipes_saw():
    """While a run on other images is under way, its records wait."""
    old = [fake_record(name, source="unverified copy") for name in ("baseline", "fine_tuned")]
    new = [fake_record(record.name, fingerprint="f" * 16) for record in old]
    info = new[0].data
    stand_in = [fake_record(name, source="synthetic stand-in") for name in RECIPES]
    ablation = fake_record("fast94_short", source="unverified copy")
    assert images_by_kin([*old, new[0], *stand_in])["systems"] == old[0].data.fingerprint
    assert images_by_kin([*old, *new])["systems"] == info.fingerprint
    assert set(images_by_kin(stand_in).values()) == set(images_by_kin([]).values()) == {""}
    # What is compared among itself may lag behind.
    both = images_by_kin([*old, *new, ablation])
    assert (both["systems"], both["ablations"]) == (info.fingerprint, old[0].data.fingerprint)
    for record in (*old, *new, ablation):
        Store(paths.records("paper")).save(record)
    lab = Lab.open("paper")
    (baseline,) = lab.records()["baseline"]
    assert baseline.data.fingerprint == info.fingerprint
    assert lab.records(ABLATIONS)["fast94_short"][0].data.fingerprint == old[0].data.fingerprint


def test_further_seeds_of_the_reference_run_count_and_none_is_asked_for(tmp_path):
    """Someone who brings the data sees all that the reference run has, and not the first three seeds of it."""
    recipe = RECIPES["fine_tuned"]
    network = network_of(recipe)
    for record in fake_records("fine_tuned", 5):
        key = run_key(record.recipe, network, "", record.data.fingerprint, record.seed)
        Store(paths.records("paper")).save(dataclasses.replace(record, network=network, key=key))
    (tmp_path / "images").mkdir()
    lab = Lab.open("paper", data_dir=tmp_path / "images")
    test = SimpleNamespace(labels=torch.as_tensor(record.predictions.labels))
    lab.__dict__["data"] = SimpleNamespace(info=record.data, test=test)
    assert [found.seed for found in lab.records()["fine_tuned"]] == [0, 1, 2, 3, 4]
    assert lab.missing_seeds(recipe) == []
    assert lab.missing_seeds(RECIPES["deep_cnn"]) == [0, 1, 2]


@pytest.mark.parametrize(
    "place", [{"loc": "outside lower center"}, {"loc": "upper center", "bbox_to_anchor": (0.5, 0)}]
)
def test_the_caveat_stands_under_the_legend_in_the_file_that_is_saved(place, displayed):
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    for label in ("first line", "last line"):
        axes.plot([1, 2], label=label)
    legend = figure.legend(**place)
    figure.draw_without_rendering()
    top = legend.get_window_extent().y1
    Lab.open("smoke").show(figure, "line", "A line.")
    assert legend.get_window_extent().y1 == pytest.approx(top)
    svg = paths.figures("smoke").joinpath("line.svg").read_text()
    drawn = {
        text: re.search(rf"<!-- {text}.*?translate\([\d.]+ ([\d.]+)\)", svg, re.DOTALL)
        for text in ("last line", "synthetic")
    }
    assert float(drawn["synthetic"][1]) > float(drawn["last line"][1]) + legend.get_texts()[0].get_fontsize()


@pytest.mark.parametrize("chapter", [chapters.ablation, chapters.upscaled, chapters.race])
def test_what_is_to_be_said_of_stored_runs_stands_beside_them(chapter, displayed):
    """Of the reference run's own report, too: of other images, and of code that has changed since."""
    lab = Lab.open("paper")
    for name in (*ABLATIONS, "resnet18", "resnet18_pretrained", "frozen_32", "frozen_64"):
        lab.store.save(fake_record(name, source="unverified copy"))
    chapter(lab)
    shown = [one.data for one in displayed if "caption>" in one.data or "Conditions" in one.data]
    assert shown
    for one in shown:
        drawn = base64.b64decode(one.split("base64,")[1].split('"')[0]).decode() if "base64," in one else ""
        assert "unverified copy of CIFAR-10" in one + drawn
        assert "by earlier code" in one + drawn
