"""Edited code gives no old result: not of a network of one's own, nor of the suite's networks and training."""

import os
import shutil
import subprocess
import sys

import papermill
from document.test_report import write_notebook

from labreport import paths

NETWORK = """
import dataclasses
from torch import nn
from labreport import MODELS, RECIPES, Lab
from labreport.images.synthetic import synthetic

class Net(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.conv = nn.Conv2d(3, {channels}, 3)
        self.fc = nn.Linear({channels}, num_classes)

    def forward(self, x):
        return self.fc(self.conv(x).relu().mean((2, 3)))

MODELS["my_net"] = Net
lab = Lab.open("smoke")
lab.__dict__["data"] = synthetic(n_train=100, n_val=40, n_test=60)
(record,) = lab.train(dataclasses.replace(RECIPES["fine_tuned"], name="mine", model="my_net"))
print("parameters", record.parameters)
"""


def test_a_network_of_ones_own_is_trained_again_after_an_edit(tmp_path, monkeypatch, fault):
    """A class defined in a cell, with 4 channels, with 64, and with 4 again: the last is answered from the store."""
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path / "home"))
    cells = [NETWORK.format(channels=channels) for channels in (4, 64, 4)]
    notebook = write_notebook(tmp_path / "mine.ipynb", *cells)
    fault("a network edited in a notebook")
    done = papermill.execute_notebook(
        notebook, tmp_path / "out.ipynb", kernel_name="python3", language="python", progress_bar=False
    )
    said = [
        "".join(output.text for output in cell.outputs if output.output_type == "stream").splitlines()
        for cell in done.cells[-3:]
    ]
    assert [lines[-1] for lines in said] == [f"parameters {n * 28 + n * 10 + 10}" for n in (4, 64, 4)]
    assert any("trained again, since its network or its first weights are other ones" in line for line in said[1])
    assert any("from the store" in line for line in said[2])
    assert len(list((tmp_path / "home").rglob("mine-seed0-*.json"))) == 2


TRAIN = """
import os, signal, sys
from dataclasses import replace
import torch
from labreport import RECIPES, Lab
from labreport.images.synthetic import synthetic
from labreport.training import train as training
torch.set_num_threads(1)
lab = Lab.open("smoke")
data = lab.__dict__["data"] = synthetic(n_train=100, n_val=40, n_test=60)
small = dict(epochs=3, batch_size=20, optimizer="sgd", schedule="constant")
def end(run):
    if sys.argv[1] == "stop" and len(run.history) == 1:
        raise KeyboardInterrupt
def run(name, model, stop=False):
    recipe = replace(RECIPES[name], model=model, **small)
    try:
        training.train(recipe, data, 1 if stop else 0, profile="smoke", on_epoch=end if stop else None)
    except KeyboardInterrupt:
        pass
for name in ("baseline", "fine_tuned"):
    run(name, name)
    run(name, name, stop=True)
found = {name: lab.store.all(name) for name in ("baseline", "fine_tuned")}
for name, records in found.items():
    print(name, sorted((r.seed, len(r.stretches)) for r in records))
    recipe = replace(RECIPES[name], **small)
    Lab.recipe = lambda self, given: replace(RECIPES[given], **small)
print("earlier", lab.of_earlier_code({name: [r for r in records if r.seed == 0] for name, records in found.items()}))
"""


def replaced(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_an_edit_of_the_suite_s_own_code_is_told(tmp_path, fault):
    """In a copied checkout a network and the training step change after one run was finished and one had an epoch.

    The network's run is trained anew; the other's record stays, as measured by earlier code; no checkpoint goes on.
    """
    copy = tmp_path / "checkout"
    shutil.copytree(paths.REPOSITORY / "labreport", copy / "labreport", ignore=shutil.ignore_patterns("__pycache__"))
    environment = os.environ | {"PYTHONPATH": str(copy), "LABREPORT_HOME": str(tmp_path / "home")}

    def run(word):
        command = [sys.executable, "-c", TRAIN, word]
        done = subprocess.run(command, env=environment, cwd=copy, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done

    assert run("stop").stdout.splitlines() == ["baseline [(0, 1)]", "fine_tuned [(0, 1)]", "earlier {}"]
    fault("edit of a network and of the training step")
    models, steps = copy / "labreport/networks/models.py", copy / "labreport/training/steps.py"
    replaced(models, "F.relu(F.max_pool2d(conv(x), 2))  # ReLU", "F.max_pool2d(conv(x), 2).tanh()  # ReLU")
    replaced(steps, "loss.backward()", "(1.5 * loss).backward()")
    after = run("go")
    assert after.stdout.splitlines()[:2] == ["baseline [(0, 1), (0, 1), (1, 1)]", "fine_tuned [(0, 1), (1, 1)]"]
    assert after.stdout.splitlines()[2] == "earlier {'baseline': 1, 'fine_tuned': 1}"
    assert "Baseline (Origin), seed 0, note: trained again, since its network" in after.stderr
    assert "Baseline (Origin), seed 1, note: starts at the beginning, since " in after.stderr
    assert (
        "Fine-tuning, seed 1, note: starts over, since of its checkpoint its 1 epochs were trained by other"
        in after.stderr
    )
    assert "by other code (loop)" in after.stderr
