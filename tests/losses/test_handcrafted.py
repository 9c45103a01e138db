import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from metaloss import train
from metaloss.errors import MetalossError
from metaloss.registry import get
from metaloss.types import Link

from .families import build, rows

SCALES = [1.0, 30.0, 1e4]


def _draw(shape, scale, dtype):
    draw = torch.Generator().manual_seed(3)
    return (scale * torch.randn(shape, generator=draw, dtype=torch.float64)).to(dtype), draw


def _same(ours, theirs, outputs):
    """Compare two losses of the outputs, and their slopes, to 1e-6 relative."""
    leaf, other = outputs.clone().requires_grad_(), outputs.clone().requires_grad_()
    found, expected = ours(leaf), theirs(other)
    assert expected > 0
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    (slope,), (aim,) = torch.autograd.grad(found, leaf), torch.autograd.grad(expected, other)
    assert aim.abs().max() > 0
    torch.testing.assert_close(slope, aim, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(7, 5), (3, 5, 4, 2)])
@pytest.mark.parametrize(("name", "smoothing"), [("cross_entropy", 0.0), ("label_smoothing", 0.1)])
def test_cross_entropy_equals_torch(name, smoothing, shape, dtype, scale):
    outputs, draw = _draw(shape, scale, dtype)
    loss = build(name).to(dtype)
    indices = torch.randint(shape[1], (shape[0], *shape[2:]), generator=draw)
    ignored = indices.clone()
    ignored[::2] = -100
    soft = torch.rand(shape, generator=draw, dtype=torch.float64).softmax(1).to(dtype)
    for target in (indices, ignored, soft):
        _same(
            lambda z, y=target: loss(z, y),
            lambda z, y=target: F.cross_entropy(z, y, label_smoothing=smoothing),
            outputs,
        )


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_binary_cross_entropy_equals_torch(dtype, scale):
    outputs, draw = _draw((9, 4), scale, dtype)
    loss = build("cross_entropy", Link.sigmoid).to(dtype)
    hard = torch.randint(2, (9, 4), generator=draw).to(dtype)
    soft = torch.rand((9, 4), generator=draw, dtype=torch.float64).to(dtype)
    for target in (hard, soft):
        _same(
            lambda z, y=target: loss(z, y),
            lambda z, y=target: F.binary_cross_entropy_with_logits(z, y),
            outputs,
        )


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "theirs"), [("mse", F.mse_loss), ("mae", F.l1_loss)])
def test_regression_losses_equal_torch(name, theirs, dtype, scale):
    outputs, draw = _draw((9, 4), scale, dtype)
    target = torch.randn((9, 4), generator=draw, dtype=torch.float64).to(dtype)
    loss = build(name, Link.identity).to(dtype)
    _same(lambda z: loss(z, target), lambda z: theirs(z, target), outputs)
    one = loss(outputs[:, 0], target[:, 0])
    torch.testing.assert_close(one, theirs(outputs[:, 0], target[:, 0]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 3.5])
def test_focal_equals_torchvision(gamma, scale):
    outputs, draw = _draw((9, 4), scale, torch.float64)
    target = torch.randint(2, (9, 4), generator=draw).double()
    loss = build("focal", Link.sigmoid, gamma=gamma)
    found = loss(outputs, target)
    expected = sigmoid_focal_loss(outputs, target, alpha=-1, gamma=gamma, reduction="mean")
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_focal_with_the_softmax_link_equals_its_formula():
    outputs, target = rows(Link.softmax)
    p = outputs.softmax(1)[torch.arange(len(target)), target].numpy()
    expected = (-((1 - p) ** 2) * np.log(p)).mean()
    np.testing.assert_allclose(build("focal")(outputs, target).item(), expected, rtol=1e-12)


@pytest.mark.parametrize("q", [0.1, 0.7, 1.0])
def test_gce_equals_its_formula(q):
    outputs, target = rows(Link.softmax)
    p = outputs.softmax(1)[torch.arange(len(target)), target].numpy()
    found = build("gce", q=q)(outputs, target).item()
    np.testing.assert_allclose(found, ((1 - p**q) / q).mean(), rtol=1e-12)


def test_gce_goes_from_cross_entropy_to_half_the_absolute_error():
    pair = rows(Link.softmax)
    torch.testing.assert_close(
        build("gce", q=1e-7)(*pair), build("cross_entropy")(*pair), rtol=1e-5, atol=0
    )
    torch.testing.assert_close(build("gce", q=1.0)(*pair), build("mae")(*pair) / 2)


def test_gce_keeps_its_digits_where_the_model_is_sure():
    # 1 − p^q computed directly in float32 would be 0 here.
    outputs = torch.tensor([[20.0]])
    found = build("gce", Link.sigmoid).float()(outputs, torch.ones(1, 1)).item()
    np.testing.assert_allclose(found, np.exp(-20.0), rtol=1e-3)


def test_mae_with_the_softmax_link_is_twice_the_missing_probability():
    outputs, target = rows(Link.softmax)
    p = outputs.softmax(1)[torch.arange(len(target)), target]
    torch.testing.assert_close(build("mae")(outputs, target), (2 * (1 - p)).mean())


def test_mse_with_the_softmax_link_is_the_brier_score():
    outputs, target = rows(Link.softmax)
    expected = ((outputs.softmax(1) - F.one_hot(target, 4)) ** 2).sum(1).mean()
    torch.testing.assert_close(build("mse")(outputs, target), expected)


@pytest.mark.parametrize(
    ("link", "theirs"),
    [
        (Link.softmax, F.cross_entropy),
        (Link.sigmoid, F.binary_cross_entropy_with_logits),
        (Link.identity, F.mse_loss),
    ],
)
def test_scaled_is_a_factor_times_the_task_loss(link, theirs):
    pair = rows(link)
    torch.testing.assert_close(build("scaled", link, scale=2.5)(*pair), 2.5 * theirs(*pair))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gce", {"q": 0.0}, r"loss.q=0.0: expected a number in \(0, 1\]"),
        ("gce", {"q": 1.5}, r"loss.q=1.5: expected a number in \(0, 1\]"),
        ("gce", {"q": float("nan")}, "loss.q=nan: expected"),
        ("focal", {"gamma": 0.5}, "loss.gamma=0.5: expected 0 or a number ≥ 1"),
        ("focal", {"gamma": -1.0}, "loss.gamma=-1.0: expected"),
        ("focal", {"gamma": float("nan")}, "loss.gamma=nan: expected"),
        ("label_smoothing", {"smoothing": 1.0}, r"loss.smoothing=1.0: expected a number in \[0, 1"),
        ("label_smoothing", {"smoothing": -0.1}, "loss.smoothing=-0.1: expected"),
        ("scaled", {"scale": float("inf")}, "loss.scale=inf: expected a finite number"),
    ],
)
def test_options_out_of_range_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        build(name, **options)


# --------------------------------------------------------------------------------- logit adjustment


def test_logit_adjusted_is_cross_entropy_of_shifted_outputs():
    outputs, draw = _draw((7, 4), 3.0, torch.float64)
    target = torch.randint(4, (7,), generator=draw)
    shares = torch.tensor([0.4, 0.3, 0.2, 0.1])
    for tau in (0.0, 1.0, 2.5):
        loss = build("logit_adjusted", tau=tau)
        _same(
            lambda z, loss=loss: loss(z, target),
            lambda z, tau=tau: F.cross_entropy(z + tau * shares.log().double(), target),
            outputs,
        )


def test_logit_adjusted_takes_the_shares_of_the_training_rows(tmp_path):
    words = ["task=digits", "task.imbalance=20", "loss=logit_adjusted", "schedule=static"]
    quick = ["steps=2", "tracker=[]", f"output={tmp_path / 'run'}"]
    run = train([*words, *quick])
    targets = get("task", "digits").config_class(imbalance=20).build(0).train.targets
    counts = torch.bincount(targets, minlength=10)
    expected = (counts / counts.sum()).log()
    torch.testing.assert_close(run.loss.log_shares.cpu(), expected)
    assert expected.max() - expected.min() > 2.5  # log 20 is 3.0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["loss.tau=-1"], "loss.tau=-1.0: expected a number ≥ 0"),
        (["loss.shares=[0.5,0]"], r"loss.shares=\[0.5, 0.0\]: expected positive numbers"),
        (["loss.shares=[0.5,0.5]"], "LogitAdjusted is made for 2 classes: got raw outputs"),
        (["task=diabetes"], "LogitAdjusted with link=identity: expected"),
    ],
)
def test_logit_adjusted_refuses_what_does_not_fit(words, message, tmp_path):
    base = ["task=digits", "loss=logit_adjusted", "schedule=static", "steps=2", "tracker=[]"]
    with pytest.raises(MetalossError, match=message):
        train([*base, *words, f"output={tmp_path / 'run'}"])
