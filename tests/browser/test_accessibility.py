"""The web page under axe-core, the checker of web accessibility; skipped where Playwright or a browser is missing."""

import pytest
from fake_notebooks import FIGURE, html_output, paper_session, set_all
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

axe = pytest.importorskip("axe_playwright_python.sync_playwright")

ROW = " | ".join("1" * 9 for _ in range(30))
WIDE = f"| {' | '.join(f'column {i}' for i in range(30))} |\n|{'---|' * 30}\n| {ROW} |"
FORMULA = "$$" + " + ".join(f"x_{{{i}}}" for i in range(60)) + "$$"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABREPORT_HOME", str(tmp_path_factory.mktemp("home")))
        cells = (html_output(FIGURE.format("one", "A picture")), html_output(wide_table()))
        text = f"# Chapter\n\nSee chapter 1.\n\n{FORMULA}\n\n{WIDE}\n\n```python\nx = 1\n```"
        notebook = new_notebook(cells=[new_markdown_cell(text), new_code_cell("", outputs=list(cells))])
        return set_all([notebook], paper_session(), ["html"]).html


def wide_table():
    heads = "".join(f"<th>column {i}</th>" for i in range(30))
    body = "<td>123456789</td>" * 30
    caption = "<caption>A caption of some words</caption>"
    return f'<table id="tbl:wide">{caption}<thead><tr>{heads}</tr></thead><tbody><tr>{body}</tr></tbody></table>'


def opened(browser, page_file, width=1400, scheme="light"):
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.goto(page_file.as_uri())
    return page


@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (1400, "dark"), (390, "light"), (390, "dark")])
def test_axe_finds_no_violation(browser, page_file, width, scheme):
    results = axe.Axe().run(opened(browser, page_file, width, scheme))
    assert [violation["id"] for violation in results.response["violations"]] == []
    assert len(results.response["passes"]) > 10


def test_a_narrow_screen_shows_text_first_and_opens_the_contents_when_asked(browser, page_file):
    page = opened(browser, page_file, width=390)
    assert not page.locator("nav ul").first.is_visible()
    assert page.locator("main h1").first.bounding_box()["y"] < 400
    page.get_by_label("Contents").last.check()
    assert page.locator("nav ul").first.is_visible()


def test_a_wide_table_scrolls_in_its_box_and_its_caption_stands_still(browser, page_file):
    page = opened(browser, page_file, width=390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    caption = page.locator("[id='tbl:wide'] figcaption")
    before = caption.bounding_box()
    assert before["x"] >= 0
    assert before["x"] + before["width"] <= 390
    page.evaluate("document.querySelector(\"[id='tbl:wide'] .scroll\").scrollLeft = 500")
    assert caption.bounding_box() == before


def test_formulas_are_set_in_the_page_s_own_font(browser, page_file):
    page = opened(browser, page_file)
    assert page.evaluate("document.fonts.ready.then(() => document.fonts.check('16px \"Report Math\"', '∑'))")
    assert page.evaluate("[...document.fonts].map(font => font.status)") == ["loaded"]


def test_dark_mode_is_dark(browser, page_file):
    colour = "getComputedStyle(document.documentElement).backgroundColor"
    assert opened(browser, page_file, scheme="light").evaluate(colour) == "rgb(255, 255, 255)"
    assert opened(browser, page_file, scheme="dark").evaluate(colour) == "rgb(22, 24, 27)"
