"""The report's web page, opened without a network on a phone and on a screen."""

import pytest

BROKEN = "() => [...document.images].filter(image => !image.complete || !image.naturalWidth).map(image => image.alt)"
WIDER = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
NOWHERE = """() => [...document.links].map(link => link.getAttribute('href'))
    .filter(href => href.startsWith('#') && !document.getElementById(decodeURIComponent(href.slice(1))))"""


@pytest.mark.parametrize("width", [390, 1300])
def test_page(browser, report_page, width):
    """No picture is missing, nothing reaches over the page's edge, and every link leads to a place on it."""
    asked, complaints = [], []
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda said: complaints.append(said.text))
    page.goto(report_page.as_uri())
    assert page.evaluate(BROKEN) == []
    assert page.evaluate(WIDER) == 0
    assert page.evaluate(NOWHERE) == []
    folder = report_page.parent.as_uri()
    assert [url for url in asked if not url.startswith((folder, "data:"))] == []
    assert complaints == []
    page.close()
