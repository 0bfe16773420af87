"""Every notebook in JupyterLab, one in Notebook 7: run, looked at in the light and in the dark, its widgets moved."""

import io

import pytest
from PIL import Image

from labreport import paths

NAMES = [path.stem for path in sorted(paths.NOTEBOOKS.glob("*.ipynb"))]
PICTURES = """() => [...document.querySelectorAll('.jp-OutputArea-output img')].map(picture => {
    const { width, height, right } = picture.getBoundingClientRect();
    const room = picture.closest('.jp-OutputArea-output').getBoundingClientRect().right;
    return { alt: picture.alt, drawn: width * height * picture.naturalWidth > 0, over: Math.round(right - room) };
})"""
DRAWN = "panel => [...panel.querySelectorAll('img')].every(picture => picture.complete && picture.naturalWidth)"
PANELS = ".jp-OutputArea-output .jupyter-widgets:not(.jupyter-widgets *)"


@pytest.mark.parametrize("name", NAMES)
def test_notebook(open_notebook, name):
    with open_notebook(name) as notebook:
        use(notebook)


def test_in_notebook_7(open_in_notebook_7):
    with open_in_notebook_7("07_your_own") as notebook:
        use(notebook)


def use(notebook):
    """All that a reader does."""
    notebook.run_all()
    cells = notebook.page.evaluate("jupyterapp.shell.currentWidget.content.model.sharedModel.toJSON().cells")
    assert notebook.errors == []
    assert "Traceback" not in notebook.outputs()
    assert all(cell["execution_count"] for cell in cells if cell["cell_type"] == "code")
    check_pictures(notebook)
    follow_a_link(notebook)
    notebook.theme("Light")  # JupyterLab remembers the last one
    check_background(notebook, light=True)
    for panel in notebook.page.locator(PANELS).all():
        move_everything(notebook, panel)
    notebook.theme("Dark")
    check_background(notebook, light=False)
    assert notebook.errors == []


def check_pictures(notebook):
    """Every picture is drawn, and none is wider than its cell."""
    pictures = notebook.page.evaluate(PICTURES)
    assert [picture for picture in pictures if not picture["drawn"] or picture["over"] > 1] == []
    figures = notebook.page.locator(".jp-OutputArea-output figure")
    assert notebook.page.locator(".jp-OutputArea-output figure img").count() == figures.count()


def check_background(notebook, light):
    """Figures are on the theme's own ground, and panels' pictures: one of each, since a look takes a second."""
    figures, panels = (
        notebook.page.locator(f"{parent} img").all() for parent in (".jp-OutputArea-output figure", PANELS)
    )
    for figure in figures[:1] + panels[-1:]:
        corner = sum(Image.open(io.BytesIO(figure.screenshot())).convert("RGB").getpixel((1, 1))) / 3
        assert corner > 200 if light else corner < 60, figure.get_attribute("alt")


def follow_a_link(notebook):
    """The last erratum that the text names brings its row of the table into sight."""
    for link in notebook.page.locator(".jp-MarkdownOutput a[href^='#erratum-']").all()[-1:]:
        name = link.inner_text()
        link.click()
        notebook.page.wait_for_function(
            """id => { const { top, bottom } = document.getElementById(id).getBoundingClientRect();
                       return top > 0 && bottom < innerHeight; }""",
            arg=f"erratum-{name}",
        )


def move_everything(notebook, panel):
    """Each widget of a panel through some of its values: each time the panel has its picture."""
    assert panel.locator("img").count(), f"a widget without a picture: {panel.inner_text()}"
    for move in moves(panel):
        move()
        notebook.settle()
        assert notebook.errors == []
        notebook.page.wait_for_function(DRAWN, arg=panel.element_handle())
    check_pictures(notebook)


def moves(panel):
    """What a reader can do with the widgets of a panel."""
    for slider in panel.locator(".widget-slider").all():
        handle, readout = slider.locator(".noUi-handle"), slider.locator(".widget-readout")
        before = readout.inner_text()
        for key in ("Home", "ArrowRight", "End"):
            yield lambda handle=handle, key=key: handle.press(key)
        assert readout.inner_text() != before, "a slider that does not move"
    for choice in panel.locator("select").all():
        for place in range(choice.locator("option").count()):
            yield lambda choice=choice, place=place: choice.select_option(index=place)
    for number in panel.locator(".widget-text input[type=number]").all():
        yield lambda number=number: (number.fill("7"), number.press("Enter"))
    for button in panel.locator("button.widget-upload").all():
        yield lambda button=button: choose_photo(panel, button)
    for button in panel.locator(".widget-toggle-buttons button").all():
        yield button.click
    cells = panel.locator("button.widget-button:not(.widget-upload)").all()
    for button in cells[:: max(1, len(cells) // 5)]:  # a hundred in the confusion matrix
        yield button.click


def choose_photo(panel, button):
    with panel.page.expect_file_chooser() as asked:
        button.click()
    asked.value.set_files(drawn_photo())
    panel.get_by_text("Asked about photo.png").wait_for()


def drawn_photo():
    file = io.BytesIO()
    Image.radial_gradient("L").resize((90, 60)).convert("RGB").save(file, "PNG")
    return {"name": "photo.png", "mimeType": "image/png", "buffer": file.getvalue()}
