"""What can be asked of trained networks in a notebook: the fixed figures, and the panels as a reader uses them."""

import dataclasses
import datetime
import io

import numpy as np
import pytest
from fake_records import fake_suite
from PIL import Image

from labreport import paths
from labreport.evidence import statistics
from labreport.images.photos import PhotoError
from labreport.lab import explore
from labreport.lab.session import Lab
from labreport.records.store import Store
from labreport.training import trained
from labreport.training.trained import WeightsError


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def systems(home):
    """Two systems, trained for an epoch on a small stand-in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABREPORT_HOME", str(home))
        lab = Lab.open("smoke")
        return {name: lab.train(name) for name in ("baseline", "fine_tuned")}


@pytest.fixture
def lab(systems, home, monkeypatch):
    monkeypatch.setenv("LABREPORT_HOME", str(home))
    return Lab.open("smoke")


@pytest.fixture
def shown(monkeypatch):
    """The names of the figures, and the texts, that were shown."""
    seen: dict[str, list[str]] = {"figures": [], "texts": []}
    monkeypatch.setattr(Lab, "show", lambda self, figure, name, caption, *a, **k: seen["figures"].append(name))
    monkeypatch.setattr(Lab, "say", lambda self, text: seen["texts"].append(text))
    return seen


def test_test_images_are_asked_about_and_every_network_says_how_good_it_is(lab, systems, shown):
    explore.predict_photo(lab)
    assert shown["figures"] == ["pictures"]
    (said,) = shown["texts"]
    assert "one of 10 classes (disc, ring" in said
    for (record,) in systems.values():
        assert f"{record.stem}): {100 * record.test_score.accuracy:.2f} %" in said


def test_a_photo_of_ones_own_is_shown_under_its_name(lab, shown, tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(explore.pictures, "bars", lambda images, said, classes, titles, labels: drawn.update(
        images=images, said=said, titles=titles, labels=labels))  # fmt: skip
    Image.new("RGB", (300, 200), (255, 0, 0)).save(tmp_path / "red.png")
    explore.predict_photo(lab, str(tmp_path / "red.png"), networks=["fine_tuned"])
    assert shown["figures"] == ["your-pictures"]
    assert (drawn["titles"], drawn["labels"]) == (["red.png"], None)
    network = trained.load("fine_tuned", lab.data, "smoke")
    assert np.allclose(drawn["said"][network.title], network.predict(tmp_path / "red.png").probabilities)
    with pytest.raises(PhotoError, match=r"no\.jpg: no such file"):
        explore.predict_photo(lab, "no.jpg")
    with pytest.raises(WeightsError, match="'vgg'"):
        explore.predict_photo(lab, networks=["vgg"])


def test_layers_and_important_pixels_are_shown(lab, shown):
    explore.feature_maps(lab)
    explore.important_pixels(lab)
    assert shown == {"figures": ["feature-maps", "important-pixels"], "texts": [explore.LIMITS]}


def test_the_bars_are_said_in_words():
    said = {"A": np.array([[0.1, 0.9], [0.75, 0.25]]), "B": np.array([[0.6, 0.4], [0.2, 0.8]])}
    text = explore._in_words(["tom", ""], said, ["cat", "dog"])
    assert "tom, A: dog 90.0 %, B: cat 60.0 %; a picture, A: cat 75.0 %, B: dog 80.0 %." in text


def test_without_a_trained_network_a_sentence_says_what_is_missing(tmp_path, monkeypatch, shown):
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path))
    lab = Lab.open("smoke")
    explore.predict_photo(lab)
    explore.feature_maps(lab)
    explore.important_pixels(lab)
    assert shown == {"figures": [], "texts": [explore.NONE]}  # once


def test_errors_are_those_that_one_gets_right_and_the_other_wrong(lab, systems, shown):
    explore.errors(lab, systems)
    a, b = (records[0].predictions.correct for records in systems.values())
    both = sum(x and y for x, y in zip(a, b, strict=True))
    assert f"both get {both} right" in shown["texts"][0]
    assert set(shown["figures"]) <= {
        "right-by-baseline-wrong-by-fine_tuned", "right-by-fine_tuned-wrong-by-baseline"
    }  # fmt: skip
    assert len(shown["figures"]) == bool((a & ~b).any()) + bool((b & ~a).any()) > 0
    with pytest.raises(ValueError, match=r"'vgg'.*baseline, fine_tuned"):
        explore.errors(lab, systems, "vgg")


def test_a_record_of_other_images_with_the_same_labels_is_not_browsed(lab, systems):
    (record,) = systems["baseline"]
    assert explore._images_of(lab, [record]) is not None
    seen = dataclasses.replace(record.predictions, example_images=255 - record.predictions.example_images)
    assert explore._images_of(lab, [dataclasses.replace(record, predictions=seen)]) is None


def test_errors_of_records_without_their_images_are_counted_only(lab, shown):
    suite = fake_suite(1)
    explore.errors(lab, suite)
    assert shown["figures"] == [] and len(shown["texts"]) == 2
    assert "ResNet" not in shown["texts"][0]  # the best and the worst are compared
    explore.errors(lab, {"baseline": suite["baseline"]})
    assert "Fewer than two" in shown["texts"][-1]


def test_a_report_on_stored_records_asks_about_the_images_that_they_keep(systems, home, tmp_path, monkeypatch):
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path))
    (record,) = fake_suite(1)["fine_tuned"]
    Store(paths.records("paper")).save(record)
    images, classes = explore.test_images(Lab.open("paper"))
    assert np.array_equal(images.images.numpy(), record.predictions.example_images)
    assert classes == record.data.classes
    assert images.labels.tolist() == record.predictions.labels[record.predictions.example_indices].tolist()


# --- the panels ------------------------------------------------------------------------------------------------------


@pytest.fixture
def panel(lab):
    panel = explore._photo_panel(lab, ["baseline", "fine_tuned"])
    panel.draw()
    return panel


def upload(name: str, content: bytes) -> tuple[dict]:
    """What the widget has when a file was chosen in the browser."""
    now = datetime.datetime.now(datetime.UTC)
    return ({"name": name, "type": "", "size": len(content), "content": memoryview(content), "last_modified": now},)


def picture(panel) -> bytes:
    return bytes(panel.picture.value)


def test_the_panel_shows_another_picture_for_every_choice(panel):
    seen = [picture(panel)]
    panel.pick.value = 5
    seen.append(picture(panel))
    for view in panel.view.options[1:]:
        panel.view.value = view
        seen.append(picture(panel))
    panel.networks[0].value = "fine_tuned"
    seen.append(picture(panel))
    assert len(set(seen)) == 5
    assert all(b"<svg" in picture and b"prefers-color-scheme: dark" in picture for picture in seen)
    assert "Occlusion" in panel.says.value


def test_a_dropped_photo_is_shown_and_one_that_cannot_be_read_leaves_the_picture(panel):
    before = picture(panel)
    buffer = io.BytesIO()
    Image.new("RGBA", (50, 80), (0, 200, 0, 128)).save(buffer, "PNG")
    panel.upload.value = upload("green.png", buffer.getvalue())
    after = picture(panel)
    assert after != before and "Asked about green.png" in panel.says.value
    panel.upload.value = upload("notes.txt", b"words")
    assert picture(panel) == after
    assert "notes.txt" in panel.says.value and "Pillow" in panel.says.value
    panel.pick.value = 1  # back to the test images
    assert "one of 10 classes" in panel.says.value and picture(panel) != after
    assert panel.upload.value == ()  # the same photo once more is a change


def test_a_cell_of_the_confusion_matrix_shows_its_images(lab, systems, monkeypatch):
    known = {name: records[0] for name, records in systems.items()}
    drawn = {}
    monkeypatch.setattr(explore.pictures, "grid", lambda images, titles: drawn.update(images=images, titles=titles))
    monkeypatch.setattr(explore, "svg", lambda figure: b"svg")
    panel = explore._answers_panel(lab, known, "baseline", "fine_tuned")
    panel._relabel()
    seen = known["baseline"].predictions
    counts = statistics.confusion(seen.labels, seen.predicted, 10)
    assert {cell: int(button.description) for cell, button in panel.cells.items()} == dict(np.ndenumerate(counts))
    assert len(drawn["images"]) == min((~seen.correct).sum(), explore.MOST)  # at first all errors
    cell = tuple(np.argwhere(counts == counts.max())[0])
    panel.cells[cell].click()
    inside = np.flatnonzero((seen.labels == cell[0]) & (seen.predicted == cell[1]))
    order = inside[np.argsort(-seen.confidence[inside], kind="stable")][: explore.MOST]
    assert np.array_equal(drawn["images"], lab.data.test.images.numpy()[order])
    assert f"{100 * seen.confidence[order[0]]:.1f} %" in drawn["titles"][0]
    asked = {}
    monkeypatch.setattr(explore.pictures, "bars", lambda images, said, *rest: asked.update(images=images, said=said))
    panel.view.value = "ten bars"
    assert np.array_equal(asked["images"], lab.data.test.images.numpy()[order[:3]])
    for record, said in zip(known.values(), asked["said"].values(), strict=True):
        assert np.allclose(said, np.exp(record.predictions.log_probabilities[order[:3]].astype(float)))
    panel.view.value = "images"
    panel.right.value = True
    rival = known["fine_tuned"].predictions
    assert panel.says.value.count(f" of {rival.correct[inside].sum()} image") == 1


def test_an_empty_cell_says_so(lab, systems):
    known = {name: records[0] for name, records in systems.items()}
    alone = dataclasses.replace(known["baseline"], seed=1)
    panel = explore._answers_panel(lab, {"baseline": known["baseline"], "again": alone}, "baseline", "again")
    panel.right.value = True  # the same answers: none of its errors is right by the other
    assert "no image to show" in panel.says.value
