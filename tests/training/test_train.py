"""Training against a plain loop, a killed run against an unbroken one, and scores against their definitions."""

import dataclasses
import os
import signal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from faults import processes

from labreport import paths
from labreport.bench import appendix
from labreport.evidence import figures, statistics
from labreport.facts.recipes import RECIPES, Recipe, for_profile
from labreport.images import augment
from labreport.images import cifar10 as data
from labreport.networks import costs, models
from labreport.records.store import Store
from labreport.training import evaluate, steps
from labreport.training import train as training
from labreport.training.device import supports_bf16
from labreport.training.run import DeviceSplit, Run, TrainingError

TINY = Recipe(
    name="tiny",
    model="fine_tuned",  # with dropout, so that a resumed run must get its randomness right
    epochs=3,
    batch_size=20,
    optimizer="adam",
    lr=1e-3,
    schedule="step",
    step_size=1,
    gamma=0.5,
    flip="random",
    translate=2,
)


@pytest.fixture(scope="module")
def images():
    return data.synthetic(n_train=100, n_val=40, n_test=60)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path))
    return tmp_path


def same(a, b):
    timeless = [dataclasses.replace(row, seconds=0.0) for row in a.history]
    assert timeless == [dataclasses.replace(row, seconds=0.0) for row in b.history]
    assert (a.test_score, a.val_score, a.train_score, a.key) == (b.test_score, b.val_score, b.train_score, b.key)
    np.testing.assert_array_equal(a.predictions.nll, b.predictions.nll)


def train_until_killed() -> None:
    def on_epoch(run):
        if len(run.history) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    training.train(TINY, data.synthetic(n_train=100, n_val=40, n_test=60), seed=3, on_epoch=on_epoch)


def test_a_killed_run_resumes_to_the_unbroken_result(images, home, monkeypatch):
    torch.set_num_threads(1)
    process = processes.start(home, train_until_killed)
    assert processes.ended(process) == -signal.SIGKILL, processes.said(home).read_text()
    assert list(paths.runs("quick").glob("tiny-seed3-*.checkpoint"))
    epochs = []
    resumed = training.train(TINY, images, seed=3, on_epoch=lambda run: epochs.append(len(run.history)))
    assert epochs == [3]  # only what was missing
    assert not list(paths.runs("quick").glob("*.checkpoint"))
    monkeypatch.setenv("LABREPORT_HOME", str(home / "elsewhere"))
    same(resumed, training.train(TINY, images, seed=3))


def test_a_checkpoint_leaves_the_optimisers_device_settings_alone(images, tmp_path):
    """As when a run goes on on another kind of device: the rate stays a tensor there, and Adam can be recorded."""
    split = DeviceSplit.of(images.train, torch.device("cpu"))
    start, resumed = (Run.start(TINY, 0, split, 10, torch.device("cpu")) for _ in range(2))
    steps.train_epoch(start, split, 0)
    start.save(tmp_path / "checkpoint", {})
    (group,) = resumed.optimizers[0].param_groups
    group.update(lr=torch.tensor(TINY.lr), capturable=True)
    assert resumed.resume(tmp_path / "checkpoint", {}) == ""
    (group,) = resumed.optimizers[0].param_groups
    assert isinstance(group["lr"], torch.Tensor) and group["capturable"] is True
    assert group["initial_lr"] == TINY.lr
    torch.testing.assert_close(resumed.model.fc1.weight, start.model.fc1.weight)


def test_an_identical_request_is_answered_from_the_store(images):
    first = training.train(TINY, images)
    again = training.train(TINY, images, on_epoch=lambda run: pytest.fail("trained again"))
    assert again == first
    other = training.train(TINY, images, seed=1)
    assert other.key != first.key
    assert len(Store(paths.records("quick")).all("tiny")) == 2


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_epoch(images):
    def spoil(run):
        with torch.no_grad():
            run.model.fc2.bias.fill_(torch.inf)

    with pytest.raises(TrainingError, match=r"tiny, seed 0.*epoch 2.*learning rate"):
        training.train(TINY, images, on_epoch=spoil)
    (checkpoint,) = paths.runs("quick").glob("*.checkpoint")
    assert len(torch.load(checkpoint, weights_only=True)["history"]) == 1
    assert not Store(paths.records("quick")).all()


def test_a_damaged_checkpoint_is_told(images):
    with pytest.raises(KeyboardInterrupt):
        training.train(TINY, images, on_epoch=lambda run: signal.raise_signal(signal.SIGINT))
    (checkpoint,) = paths.runs("quick").glob("*.checkpoint")
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(TrainingError, match="move it away"):
        training.train(TINY, images)


@pytest.mark.parametrize("name", ["baseline", "first_optimization", "fine_tuned", "resnet18"])
def test_the_fast_path_computes_what_a_plain_loop_computes(images, name):
    """The same weights after 5 steps: with all our shortcuts, against the appendix's network and none of them.

    In float64 and by SGD: in float32 rounding grows tenfold a step in a ResNet, and Adam makes a whole step of it.
    """
    recipe = dataclasses.replace(RECIPES[name], optimizer="sgd", lr=1e-3, momentum=0.9, batch_size=20, flip="none")
    recipe = dataclasses.replace(recipe, precision="fp32")
    split = DeviceSplit.of(images.train, torch.device("cpu"))
    run = Run.start(recipe, 0, split, 10, torch.device("cpu"))
    torch.manual_seed(0)
    plain = appendix.NETWORKS[name]()
    for network in (plain, run.model):
        network.double()
        for module in network.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0  # the two would drop the same share, but at other places
    optimizer = torch.optim.SGD(plain.parameters(), lr=1e-3, momentum=0.9, foreach=False)
    order = torch.randperm(100, generator=steps.epoch_generator(0, 0, torch.device("cpu")))
    for index in order.split(20):
        inputs = augment.normalize(images.train.images[index], recipe.normalization).contiguous()
        loss = F.cross_entropy(plain(inputs.double()), images.train.labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    run.model.train()
    for inputs, labels in steps.chunks(recipe, split, seed=0, epoch=0, size=20):
        steps.train_step(run, inputs.double(), labels)
    for (key, expected), got in zip(plain.state_dict().items(), run.model.state_dict().values(), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5, msg=lambda m, key=key: f"{key}: {m}")


def test_bf16_agrees_with_fp32(images):
    if not supports_bf16(torch.device("cpu")):
        pytest.skip("this CPU has no bfloat16 instructions")
    split = DeviceSplit.of(images.test, torch.device("cpu"))
    run = Run.start(RECIPES["deep_cnn"], 0, split, 10, torch.device("cpu"))
    assert run.autocast
    half = evaluate.predict(run, split)
    run.autocast = False
    full = evaluate.predict(run, split)
    assert (half - full).abs().max() < 0.03 * full.abs().max()


def test_an_epoch_shows_every_image_once_with_its_label(images):
    recipe = dataclasses.replace(TINY, flip="none", translate=0)
    split = DeviceSplit.of(images.train, torch.device("cpu"))
    normalised = augment.normalize(images.train.images)
    orders = []
    for epoch in range(2):
        seen = []
        for inputs, labels in steps.chunks(recipe, split, seed=0, epoch=epoch, size=40):
            for image, label in zip(inputs, labels, strict=True):
                place = int((normalised - image).abs().sum((1, 2, 3)).argmin())
                assert images.train.labels[place] == label
                seen.append(place)
        assert sorted(seen) == list(range(100))
        orders.append(seen)
    assert orders[0] != orders[1]


def test_test_time_average_weighs_six_views():
    """Half the image and its mirror image, half its two shifts and their mirror images."""
    images = torch.randn(2, 3, 8, 8)
    views = evaluate.views(images, "flip_shift")
    assert [weight for weight, _ in views] == [0.25, 0.25, 0.125, 0.125, 0.125, 0.125]
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")
    np.testing.assert_array_equal(views[2][1].numpy(), padded[:, :, :8, :8])
    np.testing.assert_array_equal(views[5][1].numpy(), padded[:, :, 2:, 2:][..., ::-1])


def test_record_scores_follow_from_its_predictions(images):
    record = training.train(TINY, images)
    predictions = record.predictions
    assert record.test_score.accuracy == pytest.approx(predictions.correct.mean())
    assert record.test_score.loss == pytest.approx(predictions.nll.mean(), rel=1e-5)
    np.testing.assert_array_equal(predictions.labels, images.test.labels.numpy())
    np.testing.assert_array_equal(predictions.example_images, images.test.images[predictions.example_indices].numpy())
    assert abs(record.untrained_val_loss - np.log(10)) < 0.1


def test_flops_by_hand():
    """The baseline: multiply-adds of each layer at its output size, times two."""
    by_hand = 2 * (33 * 33 * 16 * 12 + 17 * 17 * 32 * 64 + 7 * 7 * 64 * 128 + 576 * 64 + 64 * 10)
    forward, both = costs.flops_per_input(models.build("baseline"), (3, 32, 32))
    assert forward == by_hand
    assert both == 3 * by_hand - 2 * 33 * 33 * 16 * 12  # no gradient of the images


def test_training_flops_count_small_images_as_small():
    recipe = dataclasses.replace(RECIPES["fast94"], epochs=3, batch_size=10, low_resolution_epochs=2, low_resolution=24)
    model = models.build("fast94")
    small, large = (costs.flops_per_input(model, (3, side, side))[1] for side in (24, 32))
    assert costs.training_flops(recipe, model, (3, 32, 32), n_train=105) == 100 * (2 * small + large)


def test_features_stand_on_a_trained_network_and_carry_its_costs(images):
    record = training.train(for_profile(RECIPES["dnn_softmax"], "smoke"), images, profile="smoke")
    (backbone,) = Store(paths.records("smoke")).all("deep_cnn")
    own = sum(p.numel() for p in models.build("dense_softmax").parameters())
    assert record.parameters == backbone.parameters + own
    assert record.seconds > backbone.seconds
    assert record.predictions.example_images.shape[1:] == (3, 32, 32)


@pytest.mark.parametrize("name", ["fast94", "resnet18"])
def test_large_recipes_train(images, name):
    record = training.train(for_profile(RECIPES[name], "smoke"), images, profile="smoke")
    assert np.isfinite(record.test_score.loss)
    kept = {path.name for path in paths.runs("smoke").iterdir()}
    assert kept == {f"{record.stem}.safetensors", f"{record.stem}.lock"}


def test_a_recipe_may_train_on_the_validation_images_too(images):
    """As if they had been training images from the start; then there is nothing to validate on, and it says so."""
    recipe = dataclasses.replace(TINY, train_on_val=True)
    record = training.train(recipe, images)
    joined = data.Images(
        torch.cat([images.train.images, images.val.images]), torch.cat([images.train.labels, images.val.labels])
    )
    by_hand = training.train(dataclasses.replace(TINY, name="by_hand"), dataclasses.replace(images, train=joined))
    np.testing.assert_array_equal(record.predictions.nll, by_hand.predictions.nll)
    assert record.train_score.n == 140
    assert record.val_score is None
    assert all(row.val_accuracy is None and row.val_loss is None for row in record.history)
    (stored,) = Store(paths.records("quick")).all("tiny")
    assert stored == record
    figures.curves([stored])
    with pytest.raises(ValueError, match="trained on the validation images"):
        statistics.measure([stored], "validation accuracy")


def test_validation_sees_images_of_the_epochs_size(images):
    recipe = dataclasses.replace(TINY, model="fast94", low_resolution_epochs=1, low_resolution=16)
    split = DeviceSplit.of(images.val, torch.device("cpu"))
    run = Run.start(recipe, 0, split, 10, torch.device("cpu"))
    sides = []
    run.model.register_forward_pre_hook(lambda _, args: sides.append(args[0].shape[-1]))
    for epoch in (0, 1, None):
        evaluate.predict(run, split, epoch=epoch)
    assert sides == [16, 32, 32]
