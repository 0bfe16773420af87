"""The panel in a notebook, its curves, and errors as sentences."""

import dataclasses
import io
import re

import numpy as np
import pytest
from fake_records import fake_history
from PIL import Image

from labreport.lab import live, sentences
from labreport.lab.session import Lab
from labreport.training.progress import Stage
from labreport.training.run import TrainingError

HISTORY = fake_history(0.7, 6, np.random.default_rng(0))
STAGE = Stage("Mine <b>", 0, 6, 1000, device="A processor", since="2026-01-01 00:00", left=30.0)


@pytest.fixture
def screen(monkeypatch):
    """What the notebook would show, and a clock to set: {'shown': [pages], 'now': seconds}."""
    state = {"shown": [], "now": 100.0}

    class Handle:
        def update(self, page):
            state["shown"].append(page.data)

    def display(page, display_id):
        assert display_id is True
        state["shown"].append(page.data)
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    monkeypatch.setattr("labreport.lab.live.time.monotonic", lambda: state["now"])
    return state


def test_the_panel_shows_a_training_from_its_beginning_and_folds_to_a_line(screen):
    panel = live.Panel()
    panel(STAGE)
    assert "6 epochs of 1,000 images on A processor, about 30 s" in screen["shown"][-1]
    panel(dataclasses.replace(STAGE, seen=100, rate=50.0))
    assert len(screen["shown"]) == 1  # a moment later
    screen["now"] += 1
    panel(dataclasses.replace(STAGE, seen=500, rate=50.0, running=((0.3, 2.25), (0.5, 2.125))))
    assert "epoch 1/6, 8 %, 50 images/s, 30 s left, loss 2.125" in screen["shown"][-1]
    assert "data:image/png" in screen["shown"][-1]
    (within,) = re.findall('data:image/png.*?"', screen["shown"][-1])
    panel(dataclasses.replace(STAGE, history=HISTORY[:1], notes=("mind the gap",)))
    assert "epoch 2/6" in screen["shown"][-1] and "mind the gap" in screen["shown"][-1]
    assert within not in screen["shown"][-1]  # the epoch is drawn as soon as the table has it
    panel(dataclasses.replace(STAGE, history=HISTORY, ended="6 epochs in 3 min"))
    last = screen["shown"][-1]
    assert "<progress" not in last and "<img" not in last
    assert re.search(r"<summary><strong>Mine &lt;b&gt;, seed 0</strong>: 6 epochs in 3 min</summary><table", last)


def test_several_seeds_share_one_panel(screen):
    panel = live.Panel()
    for seed in range(3):
        panel(dataclasses.replace(STAGE, seed=seed, history=HISTORY[: seed + 1]))
    assert screen["shown"][-1].count("<progress") == 3
    assert screen["shown"][-1].count("<img") == 1


@pytest.mark.parametrize("history", [HISTORY[:0], HISTORY[:1], HISTORY])
def test_the_curves_reach_over_all_epochs_without_a_background(history):
    picture = Image.open(io.BytesIO(live.curves([dataclasses.replace(STAGE, history=history)])))
    assert picture.mode == "RGBA"
    assert picture.getpixel((0, 0))[3] == 0


def raised(call):
    try:
        call()
    except BaseException as error:
        return sentences.sentence(error, error.__traceback__)


def test_an_error_of_ours_is_a_sentence_and_any_other_is_not():
    assert raised(lambda: Lab.open("fast")).startswith("profile 'fast' does not exist")
    assert raised(lambda: np.zeros(3).reshape(2)) == ""
    assert raised(lambda: int("x")) == ""

    def by_hand():
        raise TrainingError("of another file")

    assert raised(by_hand) == ""  # a reader's own


def test_an_interrupt_of_ones_own_code_keeps_its_traceback():
    def own():
        raise KeyboardInterrupt

    assert raised(own) == ""
