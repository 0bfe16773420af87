"""A training in JupyterLab: watched, interrupted, taken up again, and the page reloaded meanwhile."""

import re

OPEN = """
from dataclasses import replace
from labreport import RECIPES, Lab
from labreport.images import cifar10
lab = Lab.open("quick")
lab.__dict__["data"] = cifar10.synthetic(n_train=400, n_val=100, n_test=200)
"""
TRAIN = 'lab.train(replace(RECIPES["baseline"], name="{name}", epochs={epochs}));'


def test_an_interrupted_training_goes_on(open_notebook):
    with open_notebook("interrupted", OPEN, TRAIN.format(name="interrupted", epochs=40)) as notebook:
        notebook.start(0)
        notebook.start(1)
        notebook.page.get_by_text(re.compile(r"epoch ([5-9]|[1-3]\d)/40")).wait_for()
        notebook.command("notebook:interrupt-kernel")
        notebook.settle()
        said = notebook.outputs(1)
        (kept,) = set(re.findall(r"epoch (\d+) is kept", said))  # on the panel, and as the cell's error
        assert "Traceback" not in said and "run this again to go on" in said
        assert len(notebook.errors) == 1  # that sentence
        notebook.start(1)
        notebook.page.get_by_text(f"going on after epoch {kept} of 40").wait_for()
        notebook.settle()
        assert len(notebook.errors) == 1
        notebook.start(1)
        notebook.settle()
        assert "from the store" in notebook.outputs(1)


def test_a_training_survives_a_reload(open_notebook):
    with open_notebook("reloaded", OPEN, TRAIN.format(name="reloaded", epochs=20)) as notebook:
        notebook.start(0)
        notebook.start(1)
        notebook.page.locator("progress").wait_for()
        notebook.command("docmanager:save")
        notebook.open()
        notebook.start(1)
        notebook.settle()
        assert "from the store" in notebook.outputs(1)
        assert notebook.errors == []
