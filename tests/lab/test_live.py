"""The curve that moves while a notebook trains."""

import numpy as np
import pytest
from fake_records import fake_history
from IPython.display import Image

from labreport.lab.live import LiveCurve


@pytest.fixture
def screen(monkeypatch):
    """What the notebook would show, and a clock to set: {'shown': [images], 'now': seconds}."""
    state = {"shown": [], "now": 100.0}

    class Handle:
        def update(self, image):
            state["shown"].append(image)

    def display(image, display_id):
        assert display_id is True
        state["shown"].append(image)
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    monkeypatch.setattr("labreport.lab.live.time.monotonic", lambda: state["now"])
    return state


def test_live_curve_waits_between_pictures_and_ends_with_the_last_epoch(screen):
    history = fake_history(0.7, 6, np.random.default_rng(0))
    live = LiveCurve("baseline")
    live.update(history[:1])
    screen["now"] += 1.9
    live.update(history[:2])
    assert len(screen["shown"]) == 1
    screen["now"] += 0.2
    live.update(history[:3])
    assert len(screen["shown"]) == 2
    live.update(history)
    live.close()
    live.close()
    assert len(screen["shown"]) == 3
    assert all(isinstance(image, Image) and image.data.startswith(b"\x89PNG") for image in screen["shown"])


def test_live_curve_of_a_training_that_never_began_shows_nothing(screen):
    LiveCurve().close()
    assert screen["shown"] == []
