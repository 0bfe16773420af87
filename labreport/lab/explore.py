"""Asking trained networks: pictures of one's own, errors, feature maps, the pixels that an answer hangs on.

Each function takes the notebook's session and leaves a fixed figure, which papermill and the report keep. In JupyterLab
a panel follows, to try other pictures and networks. Nothing is trained, and nothing but CIFAR-10 is needed:

    predict_photo(lab)                 two networks' bars for three test images; panel: drop a photo, or pick an image
    predict_photo(lab, "photo.jpg")    the same for pictures of one's own, of any size and kind that Pillow reads
    feature_maps(lab)                  what every layer of a network makes of an image
    important_pixels(lab)              which pixels two networks' answers hang on
    errors(lab, systems)               test images by true and predicted class; panel: a confusion matrix to click on

Networks are the reference run's, by name (`networks=("fine_tuned", "fast94")`), else those that this session's profile
has trained: `labreport.load` gives the same ones.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from labreport.evidence import figures, pictures, statistics, tables
from labreport.evidence.tables import RecordsByName
from labreport.facts.reported import CIFAR10_CLASSES
from labreport.images.photos import to_images
from labreport.images.splits import Images
from labreport.lab.panels import AnswersPanel, PhotoPanel
from labreport.lab.session import Lab
from labreport.lab.widgets import live, svg
from labreport.networks import insight
from labreport.records.record import RunRecord
from labreport.training import trained
from labreport.training.trained import Network

PREFERRED = ("fine_tuned", "fast94", "deep_cnn")  # compared where nothing is named: the report's best, and better ones
SHOWN = (0, 1, 3)  # places in the test set; of CIFAR-10 a cat, a ship, an airplane
MOST = 30  # images shown of a cell
LIMITS = (
    "Occlusion shows what the answer loses where a grey square hides the image: a part that another can stand in for "
    "loses nothing, and the square is itself something new to the network. The gradient says where a tiny change of "
    "colour would change the answer most, not what the network looks at. Neither says why."
)
NONE = (
    "No trained network is at hand to be asked: `figures/paper/weights/` has none that knows these classes, and this "
    "profile has trained none yet. `python -m labreport train fine_tuned` trains one."
)


# --- what can be asked, about what -----------------------------------------------------------------------------------


def test_images(lab: Lab) -> tuple[Images, tuple[str, ...]]:
    """The test images and their classes; of a report on stored records those that the records keep."""
    if not lab.reports_only:
        return lab.data.test, lab.data.info.classes
    kept: list[RunRecord] = [record for records in lab.records().values() for record in records[:1]]
    if not kept:
        return Images(torch.empty(0, 3, 32, 32, dtype=torch.uint8), torch.empty(0, dtype=torch.int64)), CIFAR10_CLASSES
    seen = kept[-1].predictions
    labels = torch.from_numpy(seen.labels[seen.example_indices].astype(np.int64))
    return Images(torch.from_numpy(seen.example_images), labels), kept[-1].data.classes


def names(lab: Lab) -> list[str]:
    """The trained networks that know this session's classes, the preferred ones first."""
    classes = test_images(lab)[1]
    reference = trained.names() if classes == CIFAR10_CLASSES else []
    found = dict.fromkeys([*reference, *trained.names(lab.profile)])
    return sorted(found, key=lambda name: PREFERRED.index(name) if name in PREFERRED else len(PREFERRED))


def load(lab: Lab, name: str) -> Network:
    """One of them, as `labreport.load` gives it.

    Raises:
        WeightsError: there is none of this name, or it knows other classes.
    """
    classes = test_images(lab)[1]
    own = None if name in trained.names() and classes == CIFAR10_CLASSES else lab.profile
    network = trained.load(name, None if lab.reports_only else lab.data, own)
    if network.classes != classes:
        raise trained.WeightsError(
            f"{name} was trained on other classes ({', '.join(network.classes)}); choose another"
        )
    return network


def _chosen(lab: Lab, wanted: Sequence[str] | None, most: int = 2) -> list[Network]:
    """The networks that were named, or the first ones that there are; none, and a sentence, where there are none."""
    found = [load(lab, name) for name in (wanted or names(lab)[:most])]
    if not found:
        lab.say_once(NONE)
    return found


# --- pictures --------------------------------------------------------------------------------------------------------


def predict_photo(lab: Lab, *photos: Any, networks: Sequence[str] | None = None, name: str = "") -> None:
    """What networks say of pictures of one's own, or of three test images; then a panel to drop a photo on.

    `name` is that of the figure and its file, where there is another one.

    Raises:
        PhotoError: something is not a picture that can be read.
        WeightsError: a network that was named is not there.
    """
    chosen = _chosen(lab, networks)
    if not chosen:
        return
    images, labels, titles = _pictures(lab, photos)
    if len(images) == 0:
        lab.say("No picture is at hand: name a data folder, or give a picture of your own.")
        return
    classes = chosen[0].classes
    said = {network.title: network.logits(images).softmax(1).numpy() for network in chosen}
    true = " On orange: the true class." if labels is not None else ""
    shown = "pictures of one's own" if photos else "test images"
    caption = f"The probabilities that {' and '.join(said)} {'give' if len(said) > 1 else 'gives'} to {shown}.{true}"
    name = name or ("your-pictures" if photos else "pictures")
    figure = pictures.bars(images.numpy(), said, classes, titles, labels)
    lab.show(figure, name, caption, _caveat(lab, chosen), alt=_in_words(titles, said, classes))
    lab.say(_every_picture(classes) + "\n\n" + "\n".join(f"- {network}." for network in chosen))
    if live():
        _photo_panel(lab, [network.name for network in chosen]).show()


def _in_words(titles: Sequence[str], said: Mapping[str, np.ndarray], classes: Sequence[str]) -> str:
    """Each network's answers, for those who do not see the bars."""
    lines = []
    for i, title in enumerate(titles):
        answers = (f"{name}: {classes[p[i].argmax()]} {100 * p[i].max():.1f} %" for name, p in said.items())
        lines.append(f"{title or 'a picture'}, {', '.join(answers)}")
    return f"Bars of the classes' probabilities; the highest: {'; '.join(lines)}."


def _every_picture(classes: Sequence[str]) -> str:
    return (
        f"Every picture is taken for one of {len(classes)} classes ({', '.join(classes)}), and a network can be sure "
        "of its answer where the picture shows none of them."
    )


def _caveat(lab: Lab, shown: Sequence[Network] | Sequence[RunRecord]) -> str | None:
    """The session's own caveat (None), or of what the reference run trained that of the data alone."""
    return lab.data_caveat if {one.profile for one in shown} == {"paper"} else None


def _pictures(lab: Lab, photos: Sequence[Any]) -> tuple[torch.Tensor, list[int] | None, list[str]]:
    """Images (N, 3, 32, 32) uint8 to ask about, their labels if known, and what to call them."""
    if photos:
        titles = [str(photo).rpartition("/")[2][-24:] if isinstance(photo, str) else "" for photo in photos]
        return torch.cat([to_images(photo) for photo in photos]), None, titles
    known, classes = test_images(lab)
    places = [place for place in SHOWN if place < len(known)]
    labels = known.labels[places].tolist()
    return known.images[places], labels, [classes[label] for label in labels]


def feature_maps(lab: Lab, photo: Any = None, network: str | None = None) -> None:
    """What every layer of a network makes of a picture, or of a test image; `predict_photo`'s panel shows others."""
    for asked in _chosen(lab, [network] if network else None, most=1):
        image = _pictures(lab, [photo] if photo is not None else [])[0][:1]
        if len(image):
            caption = (
                f"{asked.title}: the image, and what each convolution makes of it, of each layer the {pictures.MAPS} "
                "maps that vary most; red is above zero, blue below."
            )
            figure = _draw_maps(asked, image[0])
            alt = "; ".join(ax.get_title(loc="left") for ax in figure.axes[1:])
            lab.show(figure, "feature-maps", caption, _caveat(lab, [asked]), alt=f"An image and its maps: {alt}.")


def important_pixels(lab: Lab, photo: Any = None, networks: Sequence[str] | None = None) -> None:
    """Which pixels of a picture, or of a test image, two networks' answers hang on, by occlusion and by gradient."""
    chosen = _chosen(lab, networks)
    image = _pictures(lab, [photo] if photo is not None else [])[0][:1] if chosen else None
    if image is not None and len(image):
        caption = (
            "Which pixels an answer hangs on: what it loses, in points, where a square of 6×6 pixels hides them, and "
            "how steep its log-probability is there."
        )
        lab.show(_draw_pixels(chosen, image[0]), "important-pixels", caption, _caveat(lab, chosen))
        lab.say(LIMITS)


def _draw_maps(network: Network, image: torch.Tensor) -> Figure:
    maps = insight.feature_maps(network.model, network.normalized(image))
    return pictures.feature_maps(image.numpy(), {name: values.numpy() for name, values in maps.items()})


def _draw_pixels(networks: Sequence[Network], image: torch.Tensor) -> Figure:
    found = {}
    for network in networks:
        inputs = network.normalized(image)
        with torch.no_grad():
            said = network.model(inputs).softmax(1)[0]
        best = int(said.argmax())
        answer = f"{network.classes[best]} {100 * said[best]:.1f} %"
        hidden, slope = (look(network.model, inputs, best).numpy() for look in (insight.occlusion, insight.gradient))
        found[network.title] = answer, hidden, slope
    return pictures.important_pixels(image.numpy(), found)


def _photo_panel(lab: Lab, first: Sequence[str]) -> PhotoPanel:
    """The panel under `predict_photo`."""
    known, classes = test_images(lab)
    loaded = cache(lambda name: load(lab, name))

    def draw(view: str, wanted: Sequence[str], photo: tuple[str, bytes] | None, place: int) -> tuple[bytes, str]:
        networks = [loaded(name) for name in dict.fromkeys(wanted)]
        if photo:
            file = io.BytesIO(photo[1])
            file.name = title = photo[0]
            image, labels = to_images(file)[0], None
        elif len(known):
            image, labels = known.images[place], [int(known.labels[place])]
            title = classes[labels[0]]
        else:
            raise ValueError("No data folder was named, so there is no test image: choose a photo of yours.")
        if view == "feature maps":
            return svg(_draw_maps(networks[0], image)), f"{networks[0].title}: red is above zero, blue below."
        if view == "pixels that matter":
            return svg(_draw_pixels(networks, image)), LIMITS
        said = {network.title: network.logits(image[None]).softmax(1).numpy() for network in networks}
        return svg(pictures.bars(image[None].numpy(), said, classes, [title[-24:]], labels)), _every_picture(classes)

    return PhotoPanel(names(lab), first, len(known), ("ten bars", "feature maps", "pixels that matter"), draw)


# --- errors ----------------------------------------------------------------------------------------------------------


def errors(lab: Lab, systems: RecordsByName, first: str | None = None, second: str | None = None) -> None:
    """Test images that one system gets right and another wrong, and how many; then a panel to browse all answers.

    `systems` are records by name; the first seed of each is shown. Where no two are named, the worst and the best of
    them are compared.
    """
    known = {name: records[0] for name, records in systems.items() if records}
    ranked = sorted(known, key=lambda name: known[name].test_score.accuracy)
    if len(known) < 2:
        lab.say("Fewer than two of these systems were run, so their errors cannot be compared.")
        return
    if unknown := [name for name in (first, second) if name and name not in known]:
        raise ValueError(f"no system {unknown[0]!r} was run; there are {', '.join(known)}")
    a = known[first or next(name for name in ranked if name != second)]
    b = known[second or next(name for name in reversed(ranked) if known[name] is not a)]
    lab.say(_counts(a, b))
    images = _images_of(lab, [a, b])
    if images is None:
        lab.say("The test images of these records are not at hand; name their data folder to see the errors.")
        return
    for right, wrong in ((b, a), (a, b)):
        chosen = statistics.places(wrong, other=right, other_right=True)[:10]
        if len(chosen):
            caption = (
                f"Right by {tables.title([right])}, wrong by {tables.title([wrong])} (seeds {right.seed} and "
                f"{wrong.seed}): true class, the wrong answer and its confidence, the surest first."
            )
            titles = [figures.answer_lines(wrong, place) for place in chosen]
            name = f"right-by-{right.name}-wrong-by-{wrong.name}"
            lab.show(pictures.grid(images[chosen], titles), name, caption, _caveat(lab, [a, b]))
    if live():
        _answers_panel(lab, known, a.name, b.name).show()


def _counts(a: RunRecord, b: RunRecord) -> str:
    """How often both, one or neither of two systems is right."""
    right_a, right_b = a.predictions.correct, b.predictions.correct
    names = tables.title([a]), tables.title([b])
    if not np.array_equal(a.predictions.labels, b.predictions.labels):
        raise ValueError(f"{' and '.join(names)} were measured on different test images and cannot be compared")
    same = (a.predictions.predicted == b.predictions.predicted)[~right_a & ~right_b]
    return (
        f"Of {len(right_a):,} test images {' and '.join(names)} both get {(right_a & right_b).sum():,} right; "
        f"{(right_a & ~right_b).sum():,} only {names[0]}, {(~right_a & right_b).sum():,} only {names[1]}, and "
        f"{(~right_a & ~right_b).sum():,} neither, of which they give {same.sum():,} the same wrong name."
    )


def _images_of(lab: Lab, records: Sequence[RunRecord]) -> np.ndarray | None:
    """The test images that all these records were measured on, if they are at hand.

    They are known by all labels, and by the pixels of the few images that a record keeps.
    """
    if lab.reports_only:
        return None
    images, labels = lab.data.test.images.numpy(), lab.data.test.labels.numpy()
    for seen in (record.predictions for record in records):
        if not np.array_equal(seen.labels, labels):
            return None
        if not np.array_equal(seen.example_images, images[seen.example_indices]):
            return None
    return images


def _answers_panel(lab: Lab, known: Mapping[str, RunRecord], first: str, second: str) -> AnswersPanel:
    """The panel under `errors`."""
    known = {name: record for name, record in known.items() if _images_of(lab, [record]) is not None}
    images, classes = lab.data.test.images.numpy(), lab.data.info.classes

    def matrix(name: str) -> np.ndarray:
        seen = known[name].predictions
        return statistics.confusion(seen.labels, seen.predicted, len(classes))

    def draw(
        name: str, cell: tuple[int, int] | None, other: str, right: bool | None, surest: bool, view: str
    ) -> tuple[bytes, str]:
        record, rival = known[name], known[other]
        label, answer = cell or (None, None)
        chosen = statistics.places(record, label, answer, other=rival, other_right=right)
        shown = (chosen if surest else chosen[::-1])[: MOST if view == "images" else 3]
        if view == "ten bars" and len(shown):
            return svg(_draw_answers([record, rival], images, shown)), "On orange: the true class."
        called = rival.predictions.predicted
        titles = [f"{figures.answer_lines(record, k)}\n({classes[called[k]]})" for k in shown]
        sentence = (
            f"{len(shown)} of {tables.counted(len(chosen), 'image')}: true class, {tables.title([record])}'s answer if "
            f"it is another, its confidence; in brackets {tables.title([rival])}'s answer."
        )
        return svg(pictures.grid(images[shown], titles)), sentence

    return AnswersPanel(list(known), first, second, classes, matrix, ("images", "ten bars"), draw)


def _draw_answers(records: Sequence[RunRecord], images: np.ndarray, places: np.ndarray) -> Figure:
    """The bars of systems for some test images, from the log-probabilities that their records keep."""
    said = {
        tables.title([record]): np.nan_to_num(np.exp(record.predictions.log_probabilities[places].astype(float)))
        for record in records
    }
    classes, labels = records[0].data.classes, records[0].predictions.labels[places].tolist()
    return pictures.bars(images[places], said, classes, [classes[label] for label in labels], labels)
