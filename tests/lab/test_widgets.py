"""Sliders, without a browser: what they show and where they end."""

import re

import torch

from labreport.derivations import figures
from labreport.lab import widgets

IMAGE = torch.arange(3 * 32 * 32).view(3, 32, 32).mul(7).remainder(256).to(torch.uint8)
RANGES = {"size": (3, 9, 1, 5), "place": (0, 15), "kernel": (1, 5, 1, 2)}
RANGES |= {"stride": (1, 3), "padding": (0, 3), "dilation": (1, 3)}


def panel():
    """Sliders by name, the sentence, the picture."""
    shown = widgets.panel(
        lambda **setting: figures.one_place(IMAGE, **setting), most={"place": figures.last_place}, **RANGES
    )
    box, says, picture = shown.children
    return {slider.description: slider for slider in box.children}, says, picture


def test_nothing_is_shown_where_nobody_can_move_a_slider(capsys):
    widgets.sliders(lambda size: 1 / 0, size=(1, 5))
    assert capsys.readouterr().out == ""


def test_ranges():
    asked, _, _ = panel()
    size = asked["size"]
    assert (size.min, size.max, size.step, size.value) == (3, 9, 1, 5)
    (temperature,) = (
        widgets.panel(lambda temperature: figures.overflow(), temperature=(0.2, 5.0, 0.1, 1.0)).children[0].children
    )
    assert (temperature.min, temperature.max, temperature.step, temperature.value) == (0.2, 5.0, 0.1, 1.0)


def test_a_slider_ends_where_the_others_let_it():
    asked, _, _ = panel()
    asked["place"].value = 15
    asked["stride"].value = 3  # places 0 and 3 of each axis
    assert (asked["place"].max, asked["place"].value) == (3, 3)
    asked["padding"].value, asked["stride"].value = 1, 1
    assert asked["place"].max == 6 * 6 - 1


def test_every_move_changes_the_picture_and_not_its_height():
    asked, _, picture = panel()
    heights, seen = set(), set()
    for name, value in (("place", 3), ("size", 9), ("kernel", 5), ("padding", 3), ("place", 100)):
        asked[name].value = value
        seen.add(picture.value)
        heights.add(re.search(rb'height="([^"]+)"', picture.value)[1])
    assert len(seen) == 5 and len(heights) == 1


def test_a_bad_setting_is_said_in_words_and_the_picture_stays():
    asked, says, picture = panel()
    before = picture.value
    asked["size"].value, asked["dilation"].value = 3, 3
    assert "the kernel spans 4 pixels but the padded input has only 3" in says.value
    assert picture.value and picture.value != before  # of size 3, the last that could be drawn
    asked["dilation"].value = 1
    assert says.value == ""
