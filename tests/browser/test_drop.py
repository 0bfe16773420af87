"""A photo dragged from the desktop onto its panel, in JupyterLab and in Notebook 7."""

import pytest
from PIL import Image

PANEL = """
from labreport import Lab
from labreport.lab import explore
lab = Lab.open("smoke")
lab.train("baseline")
explore.predict_photo(lab)
"""
BUILT = """async ([name, content]) => {
    const data = new DataTransfer();
    data.items.add(new File([Uint8Array.from(content)], name, { type: 'image/png' }));
    data.items.add(new File(['more'], 'second.png'));
    return data;
}"""
DROP = ("dragEnter", "dragOver", "drop")
OVERLAY = "panel => getComputedStyle(panel, '::after').content"


@pytest.fixture(scope="module", params=["open_notebook", "open_in_notebook_7"])
def notebook(request):
    with request.getfixturevalue(request.param)("drop", PANEL) as notebook:
        notebook.run_all()
        yield notebook


@pytest.fixture
def panel(notebook):
    assert notebook.errors == []
    yield notebook.page.locator(".labreport-photo")
    assert notebook.errors == []


@pytest.fixture
def photo(tmp_path):
    file = tmp_path / "photo.png"
    Image.radial_gradient("L").resize((90, 60)).convert("RGB").save(file)
    return file


def picture(panel):
    return panel.locator("img").get_attribute("src")


def pick(panel, place):
    """Another test image, until no photo is asked about any more."""
    panel.locator("input[type=number]").fill(str(place))
    panel.locator("input[type=number]").press("Enter")
    panel.get_by_text("Asked about").wait_for(state="detached")


@pytest.fixture
def drag(notebook, panel):
    """The browser's own drag of a file on the disk, into the panel's middle or over another element."""
    session = notebook.page.context.new_cdp_session(notebook.page)

    def dragged(file, *steps, over=None):
        over = over or panel.locator("img")
        over.scroll_into_view_if_needed()
        box = over.bounding_box()
        place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
        for step in steps:
            session.send("Input.dispatchDragEvent", {"type": step, **place, "data": data})

    yield dragged
    session.detach()


def test_the_first_of_the_files_dropped_is_asked_about_and_the_event_goes_no_further(notebook, panel, photo):
    before = picture(panel)
    data = notebook.page.evaluate_handle(BUILT, ["one.png", list(photo.read_bytes())])
    notebook.page.evaluate("""() => {
        window.heard = [];
        for (const type of ['dragover', 'drop']) document.addEventListener(type, event => heard.push(type), true);
    }""")
    sentence = panel.locator(".widget-html").last
    assert panel.evaluate(OVERLAY) == "none"
    sentence.dispatch_event("dragenter", {"dataTransfer": data})
    assert "Drop the photo here" in panel.evaluate(OVERLAY)
    for kind in ("dragover", "drop"):
        refused = sentence.evaluate(
            """(element, [kind, dataTransfer]) => element.dispatchEvent(
                new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true, composed: true }))""",
            [kind, data],
        )
        assert not refused, "the browser would open the file"
    panel.get_by_text("Asked about one.png").wait_for()
    assert panel.evaluate(OVERLAY) == "none"
    assert picture(panel) != before
    assert notebook.page.evaluate("heard") == []


def test_a_real_drag_of_a_file_and_of_the_same_one_again(notebook, panel, drag, photo):
    address = notebook.page.url
    drag(photo, *DROP)
    panel.get_by_text("Asked about photo.png").wait_for()
    pick(panel, 3)
    drag(photo, *DROP)
    panel.get_by_text("Asked about photo.png").wait_for()
    assert notebook.page.url == address


def test_what_is_no_picture_is_told_and_the_picture_stays(panel, drag, photo, tmp_path):
    (tmp_path / "notes.txt").write_text("words")
    (tmp_path / "a folder.png").mkdir()
    pick(panel, 4)
    drag(photo, *DROP)
    panel.get_by_text("Asked about photo.png").wait_for()
    before = picture(panel)
    for name in ("notes.txt", "a folder.png"):
        drag(tmp_path / name, *DROP)
        panel.get_by_text(f"{name}: ").wait_for()
    assert picture(panel) == before


def test_a_drag_that_leaves_takes_the_invitation_along(notebook, panel, drag, photo):
    for leave in (
        lambda: drag(photo, "dragOver", over=notebook.page.locator(".jp-NotebookPanel-toolbar")),
        lambda: panel.dispatch_event(
            "dragleave", {"dataTransfer": notebook.page.evaluate_handle(BUILT, ["one.png", []])}
        ),
    ):
        drag(photo, "dragEnter", "dragOver")
        assert "Drop the photo here" in panel.evaluate(OVERLAY)
        leave()  # for the rest of the page, or out of the window
        assert panel.evaluate(OVERLAY) == "none"
