"""`derivations` against independent truths: PyTorch, autograd, numpy and brute force, over random shapes in float64."""

from __future__ import annotations

import math
import re

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from fake_records import fake_record
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from labreport import paths
from labreport.derivations import checks as derivation_checks
from labreport.derivations import figures as derivation_figures
from labreport.derivations import formulas as derivations
from labreport.derivations.formulas import Window
from labreport.evidence.statistics import least_cross_entropy
from labreport.facts.errata import ERRATA
from labreport.images import cifar10 as data
from labreport.images.synthetic import SHAPES
from labreport.lab.session import Lab

TOLERANCE = 1e-10
PROPERTY = settings(max_examples=40, deadline=None)
FORMS = (derivations.conv2d_loops, derivations.conv2d_im2col, derivations.conv2d_toeplitz)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(ours: Tensor, truth: Tensor) -> None:
    torch.testing.assert_close(ours, truth, rtol=0, atol=TOLERANCE)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, dict]:
    """Random operands x, weight, bias and settings, the kernel no larger than the padded input."""
    pair = lambda least, most: st.tuples(*[st.integers(least, most)] * 2)  # noqa: E731
    n, c_in, c_out = (draw(st.integers(1, 2)) for _ in range(3))
    kernel, stride, padding, dilation = (draw(pair(*limits)) for limits in ((1, 3), (1, 3), (0, 2), (1, 2)))
    size = draw(pair(1, 6))
    spans = (d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
    assume(all(span <= s + 2 * p for span, s, p in zip(spans, size, padding, strict=True)))
    seed = draw(st.integers(0, 1000))
    operands = normal(seed, n, c_in, *size), normal(seed + 1, c_out, c_in, *kernel), normal(seed + 2, c_out)
    return *operands, {"stride": stride, "padding": padding, "dilation": dilation}


# --- convolution ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@given(case=convolutions())
@PROPERTY
def test_every_form_gives_what_pytorch_gives(form, case):
    x, weight, bias, setting = case
    close(form(x, weight, bias, **setting), F.conv2d(x, weight, bias, **setting))
    close(form(x, weight, **setting), F.conv2d(x, weight, **setting))


@pytest.mark.parametrize("form", FORMS)
def test_integers_stand_for_pairs_and_the_dtype_is_kept(form):
    x, weight = normal(0, 1, 2, 5, 4).float(), normal(1, 3, 2, 2, 3).float()
    ours = form(x, weight, stride=2, padding=1)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, F.conv2d(x, weight, stride=2, padding=1))


@given(case=convolutions())
@PROPERTY
def test_gradients_are_those_of_autograd(case):
    x, weight, bias, setting = case
    operands = [operand.requires_grad_() for operand in (x, weight, bias)]
    output = F.conv2d(*operands, **setting)
    grad = normal(7, *output.shape)
    ours = derivations.conv2d_backward(grad, x.detach(), weight.detach(), **setting)
    for gradient, truth in zip(ours, torch.autograd.grad(output, operands, grad), strict=True):
        close(gradient, truth)


@given(case=convolutions())
@PROPERTY
def test_the_transposed_convolution_is_the_adjoint(case):
    """⟨conv(x), g⟩ = ⟨x, convᵀ(g)⟩ for all x and g."""
    x, weight, _, setting = case
    output = derivations.conv2d_im2col(x, weight, **setting)
    grad = normal(5, *output.shape)
    back = derivations.conv2d_transposed(grad, weight, tuple(x.shape[2:]), **setting)
    close((output * grad).sum(), (x * back).sum())


def test_the_forms_are_differentiable():
    x, weight, bias = normal(0, 1, 2, 4, 3).requires_grad_(), normal(1, 2, 2, 2, 2).requires_grad_(), normal(2, 2)
    for form in FORMS:
        assert torch.autograd.gradcheck(lambda x, w, form=form: form(x, w, bias, 2, 1), (x, weight))


@given(sizes=st.tuples(*[st.integers(1, 5)] * 4), seed=st.integers(0, 1000))
@PROPERTY
def test_convolution_turns_the_kernel(sizes, seed):
    """The full convolution of two outer products is the outer product of numpy's one-dimensional convolutions."""
    a, b, c, d = (normal(seed + i, size).numpy() for i, size in enumerate(sizes))
    x, weight = (torch.from_numpy(np.outer(*pair))[None, None] for pair in ((a, b), (c, d)))
    ours = derivations.convolve2d(x, weight, padding=(len(c) - 1, len(d) - 1))
    close(ours[0, 0], torch.from_numpy(np.outer(np.convolve(a, c), np.convolve(b, d))))


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 4), st.integers(0, 4), st.integers(1, 4))
@PROPERTY
def test_output_size_counts_the_places_where_the_kernel_fits(size, kernel, stride, padding, dilation):
    last_tap = dilation * (kernel - 1)
    places = [i for i in range(0, size + 2 * padding, stride) if i + last_tap < size + 2 * padding]
    if places:
        assert derivations.output_size(size, kernel, stride, padding, dilation) == len(places)
    else:
        with pytest.raises(ValueError, match=f"spans {last_tap + 1} pixels but the padded input has only"):
            derivations.output_size(size, kernel, stride, padding, dilation)


def test_the_reports_own_sizes():
    assert derivations.output_size(32, 2, padding=1) == 33
    assert [stage.size for stage in derivations.trace(derivation_checks.BASELINE, 32)] == [32, 33, 16, 17, 8, 7, 3]


def test_the_first_value_of_the_reports_example():
    x = torch.tensor([[2.0, 3, 0], [5, 7, 0], [0, 0, 0]], dtype=torch.float64)[None, None]
    weight = torch.tensor([[11.0, 13], [17, 19]], dtype=torch.float64)[None, None]
    assert derivations.conv2d_loops(x, weight)[0, 0, 0, 0] == 11 * 2 + 13 * 3 + 17 * 5 + 19 * 7
    assert derivations.conv2d_loops(x, weight, padding=1)[0, 0, 0, 0] == 19 * 2


@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2)), min_size=1, max_size=4
    )
)
@PROPERTY
def test_receptive_field_is_what_autograd_finds(settings):
    windows = [Window(str(i), *setting) for i, setting in enumerate(settings)]
    field = derivations.trace(windows, 500)[-1].receptive_field
    wide = 4 * field + 10 * math.prod(window.stride for window in windows)  # so that no border cuts it off
    seen = derivation_checks.seen_pixels(windows, wide)
    rows, columns = seen.any(1).nonzero(), seen.any(0).nonzero()
    assert rows[-1] - rows[0] + 1 == columns[-1] - columns[0] + 1 == field


# --- parameters and FLOPs ---------------------------------------------------------------------------------------------


def test_costs_of_a_network_with_every_counted_layer():
    network = nn.Sequential(
        nn.Conv2d(4, 6, (3, 2), stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 6, 3, groups=3, bias=False), nn.Flatten(), nn.Linear(6 * 2 * 3, 5), nn.Linear(5, 3, bias=False),
    )  # fmt: skip
    inputs = torch.zeros(1, 4, 8, 9)
    costs = derivations.layer_costs(network, inputs)
    assert [cost.kind for cost in costs] == ["Conv2d", "BatchNorm2d", "Conv2d", "Linear", "Linear"]
    assert costs[0].output == (6, 4, 5)
    assert costs[0].parameters == 6 * (4 * 3 * 2 + 1)
    parameters, flops = derivation_checks.counted(network, inputs)
    assert sum(cost.parameters for cost in costs) == parameters
    assert sum(cost.flops for cost in costs) == flops


def test_counting_leaves_the_network_as_it_was():
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    derivations.layer_costs(network, torch.rand(2, 3, 4, 4))
    assert network.training
    assert not any(module._forward_hooks for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_formulas_agree_with_pytorch_for_every_model_of_the_suite():
    costs = derivation_checks.suite_costs()
    assert set(costs["Model"]) == set(derivation_checks.SUITE)
    assert all(check.holds for check in derivation_checks.cost_checks(costs))


# --- softmax and cross-entropy ----------------------------------------------------------------------------------------

LOGITS = st.tuples(st.integers(1, 6), st.integers(2, 8), st.floats(0.1, 100), st.integers(0, 1000)).map(
    lambda case: case[2] * normal(case[3], case[0], case[1])
)


@given(logits=LOGITS, shift=st.floats(-500, 500))
@PROPERTY
def test_softmax_is_pytorchs_and_invariant_to_shifts(logits, shift):
    close(derivations.softmax(logits), F.softmax(logits, 1))
    close(derivations.softmax(logits + shift), derivations.softmax(logits))
    close(derivations.log_sum_exp(logits), logits.logsumexp(1))
    close(derivations.log_softmax(logits), F.log_softmax(logits, 1))


def test_logits_of_a_thousand_break_the_naive_form_only():
    logits = torch.tensor([[1000.0, 0, -1000], [-1000, -1000, -1000]], dtype=torch.float64)
    assert derivations.softmax_naive(logits)[0, 0].isnan()
    assert derivations.log_softmax_naive(logits)[0, 2] == -math.inf
    close(derivations.log_softmax(logits)[0], torch.tensor([0.0, -1000, -2000], dtype=torch.float64))
    close(derivations.softmax(logits)[1], torch.full((3,), 1 / 3, dtype=torch.float64))


@st.composite
def labelled(draw: st.DrawFn) -> tuple[Tensor, Tensor, dict]:
    """Logits, labels and options of cross-entropy, at least one label not ignored."""
    logits = draw(LOGITS)
    n, k = logits.shape
    labels = torch.tensor(draw(st.lists(st.integers(0, k - 1), min_size=n, max_size=n)))
    ignored = draw(st.sampled_from((-100, -1, 0)))
    if ignored < 0 and n > 1:
        labels[draw(st.integers(0, n - 1))] = ignored
    assume((labels != ignored).any())
    weight = draw(st.sampled_from((None, normal(n, k).abs() + 0.1)))
    reduction = draw(st.sampled_from(("mean", "sum", "none")))
    return logits, labels, {"weight": weight, "ignore_index": ignored, "reduction": reduction}


@given(case=labelled(), smoothing=st.sampled_from((0.0, 0.1, 0.5, 1.0)))
@PROPERTY
def test_cross_entropy_of_labels_is_pytorchs(case, smoothing):
    logits, labels, options = case
    log_p = F.log_softmax(logits, 1)
    close(derivations.nll_loss(log_p, labels, **options), F.nll_loss(log_p, labels, **options))
    options["label_smoothing"] = smoothing
    close(derivations.cross_entropy(logits, labels, **options), F.cross_entropy(logits, labels, **options))


@given(logits=LOGITS, smoothing=st.sampled_from((0.0, 0.1)), reduction=st.sampled_from(("mean", "sum", "none")))
@PROPERTY
def test_cross_entropy_of_soft_targets_is_pytorchs(logits, smoothing, reduction):
    targets = F.softmax(normal(1, *logits.shape), 1)
    for weight in (None, normal(2, logits.shape[1]).abs()):
        options = {"weight": weight, "label_smoothing": smoothing, "reduction": reduction}
        close(derivations.cross_entropy(logits, targets, **options), F.cross_entropy(logits, targets, **options))


@given(logits=LOGITS, smoothing=st.sampled_from((0.0, 0.1)), reduction=st.sampled_from(("mean", "sum")))
@PROPERTY
def test_the_gradient_is_softmax_minus_target(logits, smoothing, reduction):
    n, k = logits.shape
    for targets in (torch.arange(n) % k, F.softmax(normal(1, n, k), 1)):
        y = logits.clone().requires_grad_()
        F.cross_entropy(y, targets, label_smoothing=smoothing, reduction=reduction).backward()
        options = {"label_smoothing": smoothing, "reduction": reduction}
        close(derivations.cross_entropy_gradient(logits, targets, **options), y.grad)


def test_an_impossible_class_costs_nothing_where_it_is_not_the_label():
    logits = torch.tensor([[0.0, -math.inf, 0.0]], dtype=torch.float64)
    close(derivations.cross_entropy(logits, torch.tensor([2])), torch.tensor(math.log(2), dtype=torch.float64))


@given(logits=LOGITS)
@PROPERTY
def test_cross_entropy_is_entropy_plus_divergence(logits):
    q = F.softmax(logits, 1).clamp(min=1e-12)
    p = F.softmax(normal(3, *logits.shape), 1)
    cross = -(p * q.log()).sum(1)
    close(derivations.entropy(p) + derivations.kl_divergence(p, q), cross)
    close(derivations.entropy(p), torch.distributions.Categorical(probs=p).entropy())
    close(derivations.kl_divergence(p, p), torch.zeros(len(p), dtype=torch.float64))


def test_entropy_and_divergence_at_the_edges():
    certain, even = torch.tensor([1.0, 0.0]).double(), torch.tensor([0.5, 0.5]).double()
    assert derivations.entropy(certain) == 0
    assert derivations.entropy(even) == pytest.approx(math.log(2), abs=TOLERANCE)
    assert derivations.kl_divergence(certain, even) == pytest.approx(math.log(2), abs=TOLERANCE)
    assert derivations.kl_divergence(even, certain) == math.inf


@given(logits=LOGITS)
@PROPERTY
def test_no_classifier_has_less_than_the_least_loss_of_its_accuracy(logits):
    labels = torch.arange(len(logits)) % logits.shape[1]
    accuracy = float((logits.argmax(1) == labels).double().mean())
    assert float(F.cross_entropy(logits, labels)) >= least_cross_entropy(accuracy) - TOLERANCE


# --- clear errors -----------------------------------------------------------------------------------------------------

IMAGE, KERNEL, TWO = torch.zeros(1, 3, 4, 4), torch.zeros(2, 3, 2, 2), torch.zeros(2, 3)
CONVOLUTION_ERRORS = [
    ((IMAGE[0], KERNEL), {}, r"the input has shape \(3, 4, 4\); a batch of images has four axes"),
    ((IMAGE, KERNEL[0]), {}, r"the weight has shape \(3, 2, 2\); kernels have four axes"),
    ((IMAGE, KERNEL[:, :2]), {}, "the input has 3 channels but the kernels expect 2"),
    ((IMAGE, KERNEL, torch.zeros(3)), {}, r"the bias has shape \(3,\); 2 kernels need \(2,\)"),
    ((IMAGE, KERNEL), {"dilation": 4}, "the kernel spans 5 pixels but the padded input has only 4; pad more"),
    ((IMAGE[:, :, :1], KERNEL), {}, "the kernel spans 2 pixels but the padded input has only 1"),
    ((IMAGE, KERNEL), {"stride": 0}, "stride is 0; it must be at least 1"),
    ((IMAGE, KERNEL), {"padding": -1}, "padding is -1; it must be at least 0"),
    ((IMAGE, KERNEL), {"dilation": 0}, "dilation is 0; it must be at least 1"),
]
LABELS = torch.tensor([0, 2])
LOSS_ERRORS = [
    (derivations.cross_entropy, (TWO[0], LABELS), {}, r"the logits have shape \(3,\); they need two axes"),
    (derivations.cross_entropy, (TWO, LABELS[:1]), {}, r"the labels have shape \(1,\); 2 rows need \(2,\)"),
    (derivations.cross_entropy, (TWO, LABELS + 1), {}, "label 3 is not one of the 3 classes 0…2"),
    (derivations.nll_loss, (TWO, LABELS - 1), {}, "label -1 is not one of the 3 classes 0…2"),
    (derivations.nll_loss, (TWO, LABELS), {"weight": torch.ones(2)}, r"the class weights have shape \(2,\); 3 classes"),
    (derivations.cross_entropy, (TWO, LABELS), {"reduction": "avg"}, "reduction is 'avg'; there are 'mean', 'sum'"),
    (derivations.cross_entropy, (TWO, LABELS), {"label_smoothing": 1.5}, "label_smoothing is 1.5; it must lie between"),
    (derivations.cross_entropy, (TWO, TWO[:1]), {}, r"soft targets have shape \(1, 3\), but the logits \(2, 3\)"),
    (derivations.cross_entropy_gradient, (TWO, LABELS), {"reduction": "none"}, "reduction is 'none'; a gradient needs"),
    (derivations.cross_entropy_gradient, (TWO, LABELS + 1), {}, "label 3 is not one of the 3 classes"),
]


@pytest.mark.parametrize("form", [*FORMS, derivations.convolve2d])
@pytest.mark.parametrize(("operands", "setting", "sentence"), CONVOLUTION_ERRORS)
def test_operands_that_do_not_fit_are_named(form, operands, setting, sentence):
    with pytest.raises(ValueError, match=sentence):
        form(*operands, **setting)


def test_a_gradient_of_another_shape_is_named():
    with pytest.raises(
        ValueError, match=r"grad has shape \(1, 2, 4, 4\), but the convolution's output is \(1, 2, 3, 3\)"
    ):
        derivations.conv2d_backward(torch.zeros(1, 2, 4, 4), IMAGE, KERNEL)


@pytest.mark.parametrize(("function", "arguments", "options", "sentence"), LOSS_ERRORS)
def test_losses_name_what_does_not_fit(function, arguments, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        function(*arguments, **options)


# --- checks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "checks",
    [
        derivation_checks.size_checks,
        derivation_checks.backward_checks,
        derivation_checks.softmax_checks,
        derivation_checks.cross_entropy_checks,
        derivation_checks.information_checks,
        derivation_checks.untrained_checks,
        derivation_checks.log_checks,
    ],
)
@pytest.mark.parametrize("seed", [0, 12])
def test_claims_hold_for_more_than_one_seed(checks, seed):
    derivation_checks.require(checks() if checks is derivation_checks.size_checks else checks(seed))


def test_a_wrong_formula_is_caught(monkeypatch):
    monkeypatch.setattr(derivations, "softmax", lambda logits: derivations.log_softmax(2 * logits).exp())
    with pytest.raises(derivation_checks.CheckFailed, match=r"softmax = F.softmax: differs by .*, more than 1e-12"):
        derivation_checks.require(derivation_checks.softmax_checks())


@pytest.mark.parametrize(
    "pairs",
    [
        [(torch.tensor(math.nan), torch.tensor(1.0)), (torch.zeros(1), torch.zeros(1))],
        [(torch.zeros(2), torch.zeros(1))],
        [(torch.zeros(0), torch.zeros(0))],
        [],
    ],
)
def test_a_comparison_of_nothing_or_of_nan_fails(pairs):
    check = derivation_checks.compare("a claim", pairs)
    assert not check.holds
    assert derivation_checks.table([check])["Verdict"].tolist() == ["FAILS"]


# --- figures and the notebook -----------------------------------------------------------------------------------------


def every_figure() -> dict:
    images = data.synthetic(10, 10, 10).test
    image, classes = images.images[0], SHAPES
    stages = derivations.trace(derivation_checks.BASELINE, 32)[1:]
    costs = pd.DataFrame(
        [("a_long_name_of_a_model", 1000, 1000, 10**9, 10**9), ("b", 10**7, 10**7, 10**5, 10**5)],
        columns=["Model", "Parameters, formula", "Parameters, PyTorch", "FLOPs, formula", "FLOPs, PyTorch"],
    )
    logs = {place: [(0.44, 0.037), (0.69, 0.02)] for place in ("III C", "appendix")}
    fresh = {2: 0.7, 10: 2.31}
    f = derivation_figures
    return {
        "kernel_at_work": lambda: f.kernel_at_work(image, torch.tensor([[1.0, -1], [1, -1]])),
        "flipping": lambda: f.flipping(image),
        "places": f.places,
        "one_place": lambda: f.one_place(image, 9, 3, kernel=5, stride=1, padding=3, dilation=1),
        "matrix_forms": f.matrix_forms,
        "backward_steps": f.backward_steps,
        "receptive_fields": lambda: f.receptive_fields(image, stages, [torch.ones(32, 32).bool()] * len(stages)),
        "costs_by_model": lambda: f.costs_by_model(costs),
        "hand_made_kernels": lambda: f.hand_made_kernels(image),
        "first_layer": lambda: f.first_layer(normal(0, 16, 3, 2, 2), images.images[:2], "untrained"),
        "losses_and_divergence": f.losses_and_divergence,
        "overflow": f.overflow,
        "gradient_steps": lambda: f.gradient_steps(image, torch.zeros(10), 3, classes),
        "untrained_losses": lambda: f.untrained_losses(fresh, {"baseline": [2.3, 2.31], "resnet18": [2.6]}),
        "untrained_losses, none stored": lambda: f.untrained_losses(fresh, {}),
        "impossible_losses": lambda: f.impossible_losses(logs, (10, 50)),
    }


@pytest.mark.parametrize("name", every_figure())
def test_nothing_in_a_figure_is_cut_off(name):
    figure = every_figure()[name]()
    assert figure.get_figwidth() == derivation_figures.WIDTH
    figure.draw_without_rendering()
    drawn = figure.get_tightbbox()
    assert drawn.x0 >= -0.02 and drawn.y0 >= -0.02
    assert drawn.x1 <= figure.get_figwidth() + 0.02 and drawn.y1 <= figure.get_figheight() + 0.02


def test_the_stand_ins_clearest_images_are_chosen_and_called_drawn(monkeypatch, tmp_path):
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path))
    monkeypatch.delenv("LABREPORT_DATA", raising=False)
    examples = derivation_figures.examples(Lab.open("smoke"))
    assert examples.images.shape == (3, 3, 32, 32)
    assert examples.classes == SHAPES
    assert "drawn" in examples.sentence


def test_a_run_that_is_only_reported_shows_the_images_it_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path))
    monkeypatch.delenv("LABREPORT_DATA", raising=False)
    lab, record = Lab.open("paper"), fake_record("baseline")
    assert derivation_figures.first_kernels([])[1] == "untrained"
    monkeypatch.setattr(Lab, "records", lambda self: {"baseline": [record]})
    examples = derivation_figures.examples(lab)
    assert np.array_equal(examples.images.numpy(), record.predictions.example_images[:3])
    assert examples.labels.tolist() == record.predictions.labels[record.predictions.example_indices[:3]].tolist()
    kernels, label = derivation_figures.first_kernels([record])
    assert np.array_equal(kernels.numpy(), record.predictions.first_kernels)
    assert label == f"{len(record.history)} epochs"


def test_descent_on_the_logits_lowers_the_loss():
    start, label = normal(0, 10), torch.tensor([3])
    losses = [
        float(F.cross_entropy(derivation_figures.descend(start, 3, steps)[None], label)) for steps in (0, 1, 5, 50)
    ]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.05


NOTEBOOK = paths.NOTEBOOKS / "01_convolution_and_cross_entropy.ipynb"


def test_every_erratum_of_the_chapter_is_named_where_it_is_put_right():
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    named = set(re.findall(r"\*\*(E\d+)\*\*", text))
    listed = {erratum.id for erratum in ERRATA}
    assert {erratum.id for erratum in ERRATA if erratum.chapter == "01"} | {"E20"} <= named <= listed
