"""Targets out of range are refused, or make a loss that nobody can step along: NaN."""

import pytest
import torch
from torch.func import grad, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

from metaloss.errors import MetalossError
from metaloss.losses import CrossEntropy, MLPLoss, Symbolic
from metaloss.losses.mlp import Activation, MLPLossConfig
from metaloss.losses.symbolic import SymbolicConfig
from metaloss.losses.targets import readable
from metaloss.types import Link

from .families import CASES, build, phi_of, rows, value

CLASSES = [name for name, link in CASES if link is Link.softmax]
ALLOWED = r"class indices from 0 to 3, or the loss's ignore_index=-100 for rows that"


def with_one(target, place, wrong):
    changed = target.clone()
    changed[place] = wrong
    return changed


def soft(seed=2, shape=(6, 4)):
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=draw, dtype=torch.float64).softmax(1)


# ------------------------------------------------------------------------- where one can look


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("wrong", [255, -1, 4, 10**12])
def test_a_class_index_out_of_range_is_refused_as_cross_entropy_refuses_it(name, wrong):
    outputs, target = rows(Link.softmax)
    bad = with_one(target, 3, wrong)
    with pytest.raises(IndexError):
        F.cross_entropy(outputs, bad)
    with pytest.raises(
        MetalossError,
        match=rf"target has the value {wrong:g}: expected {ALLOWED}".replace("+", r"\+"),
    ) as caught:
        build(name)(outputs, bad)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(6, 4, 3), (2, 4, 3, 2)])
def test_one_place_of_many_is_enough(shape):
    outputs, target = rows(Link.softmax, shape)
    bad = with_one(target, (1, *[-1] * (target.dim() - 1)), 4)
    with pytest.raises(MetalossError, match=f"target has the value 4: expected {ALLOWED}"):
        MLPLoss()(outputs, bad)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("ignored", [255, -1, 4, 2])
def test_the_index_that_is_ignored_can_be_any(name, ignored):
    outputs, target = rows(Link.softmax, (8, 4))
    target[0], target[1:5] = 0, torch.tensor([1, 3, ignored, ignored])
    kept = target != ignored
    assert 2 < kept.sum() < len(target)
    loss = build(name)
    expected = loss(outputs[kept], target[kept])
    loss.ignore_index = ignored
    torch.testing.assert_close(loss(outputs, target), expected)
    with pytest.raises(MetalossError, match="target has the value -100"):
        loss(outputs, with_one(target, 0, -100))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.bool])
def test_classes_may_be_of_any_integer_type(dtype):
    """In a byte, −100 would be 156; among 200 classes, an int8 would see 200 as −56."""
    outputs, _ = rows(Link.softmax, (5, 200))
    target = torch.tensor([0, 1, 1, 0, 1] if dtype is torch.bool else [0, 5, 100, 127, 3])
    expected = MLPLoss(link="softmax")
    assert torch.equal(expected(outputs, target.to(dtype)), expected(outputs, target))
    if dtype is torch.uint8:
        high = torch.tensor([156, 0, 1, 2, 3])
        torch.testing.assert_close(
            CrossEntropy()(outputs, high.to(dtype)), F.cross_entropy(outputs, high)
        )


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("wrong", [-0.01, float("nan"), float("inf")])
def test_soft_targets_that_are_no_probabilities_are_refused(name, wrong):
    outputs, _ = rows(Link.softmax)
    with pytest.raises(
        MetalossError, match=rf"target has the value {wrong:g}: expected probabilities"
    ):
        build(name)(outputs, with_one(soft(), (2, 1), wrong))


@pytest.mark.parametrize("name", [name for name, link in CASES if link is Link.sigmoid])
@pytest.mark.parametrize("wrong", [-100.0, 2.0, 255.0, float("nan")])
def test_yes_no_targets_are_from_0_to_1(name, wrong):
    outputs, target = rows(Link.sigmoid)
    with pytest.raises(
        MetalossError, match=rf"target has the value {wrong:g}: expected numbers from 0"
    ):
        build(name, Link.sigmoid)(outputs, with_one(target, (2, 1), wrong))


def test_what_no_index_is_meant_for_is_refused_in_one_line():
    outputs, target = rows(Link.softmax)
    for bad, words in (
        (target.tolist(), "target is a list: expected a tensor"),
        (target.to(torch.complex64), "target is torch.complex64 and strided: expected a dense"),
        (torch.eye(6, 4).to_sparse(), "sparse_coo: expected a dense tensor"),
    ):
        with pytest.raises(MetalossError, match=words) as caught:
            MLPLoss()(outputs, bad)
        assert "\n" not in str(caught.value)


def test_an_ignored_index_is_a_whole_number():
    for wrong in (1.0, None, True, "2"):
        with pytest.raises(MetalossError, match="expected a whole number"):
            MLPLoss(ignore_index=wrong)


# ------------------------------------------------------------------------ where nobody can look


def _bad(link):
    """Outputs, right targets, and the same with one row out of range."""
    outputs, target = rows(link)
    return outputs, target, with_one(target, 3, 255)


RANGED = [(name, link) for name, link in CASES if link is not Link.identity]


@pytest.mark.parametrize(("name", "link"), RANGED)
def test_under_vmap_the_value_and_every_slope_are_nan_in_the_member_that_is_wrong(name, link):
    loss = build(name, link)
    outputs, right, wrong = _bad(link)
    phi = phi_of(loss)

    def slopes(target):
        return grad(lambda z, at: value(loss, at, z, target), argnums=(0, 1))(outputs, phi)

    of_outputs, of_phi = vmap(slopes)(torch.stack((right, wrong)))
    found = vmap(lambda target: loss(outputs, target))(torch.stack((right, wrong)))
    torch.testing.assert_close(found[0], loss(outputs, right))
    assert found[1].isnan()
    assert of_outputs[0].isfinite().all()
    assert of_outputs[0].abs().max() > 0
    assert of_outputs[1][3].isnan().all()
    for slope in of_phi.values():
        assert slope[0].isfinite().all()
        assert slope[1].isnan().all()


@pytest.mark.parametrize(("name", "link"), [("mlp", Link.softmax), ("scaled", Link.sigmoid)])
def test_a_traced_loss_is_nan_for_targets_that_were_not_there_when_it_was_traced(name, link):
    loss = build(name, link)
    outputs, right, wrong = _bad(link)
    for graph in (
        make_fx(loss)(outputs, right),
        torch.export.export(loss, (outputs, right)).module(),
    ):
        torch.testing.assert_close(graph(outputs, right), loss(outputs, right))
        assert graph(outputs, wrong).isnan()


def test_soft_targets_out_of_range_are_nan_too():
    """With an activation through which a NaN would come back with a finite slope."""
    loss = MLPLoss(MLPLossConfig(hidden=[4], activation=Activation.relu)).double()
    outputs, _ = rows(Link.softmax)
    bad = with_one(soft(), (3, 0), float("nan"))
    slope = vmap(grad(loss), in_dims=(None, 0))(outputs, torch.stack((soft(), bad)))
    assert slope[0].isfinite().all()
    assert slope[1][3].isnan().all()


def test_numbers_are_looked_at_where_that_is_free():
    target = torch.zeros(3, dtype=torch.int64)
    seen = []
    assert readable(target)
    vmap(lambda one: seen.append(readable(one)) or one)(target)
    grad(lambda one: seen.append(readable(target)) or one)(torch.zeros(()))
    make_fx(lambda one: seen.append(readable(one)) or one + 1)(target)
    assert seen == [False, False, False]
    assert not readable(target.to("meta"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("name", "link"), RANGED)
def test_on_a_gpu_the_value_and_the_slopes_are_nan(name, link):
    loss = build(name, link).cuda()
    outputs, right, wrong = (one.cuda() for one in _bad(link))
    outputs.requires_grad_()
    assert loss(outputs, right).isfinite()
    value = loss(outputs, wrong)
    assert value.isnan()
    (slope,) = torch.autograd.grad(value, outputs)
    assert slope[3].isnan().all()


def test_a_sign_does_not_hide_a_target_that_is_no_number():
    loss = Symbolic(SymbolicConfig(expression="mul(sign(t), p)"), link="identity")
    outputs, target = torch.ones(3, 1), torch.ones(3, 1)
    assert loss(outputs, target) == 1
    assert loss(outputs, with_one(target, 1, float("nan"))).isnan()


# ---------------------------------------------------------------------------- no rows at all


@pytest.mark.parametrize(("name", "link"), CASES)
def test_a_batch_of_no_rows_is_zero(name, link):
    outputs, target = rows(link)
    outputs = outputs[:0].requires_grad_()
    found = build(name, link)(outputs, target[:0])
    assert found == 0
    (slope,) = torch.autograd.grad(found, outputs)
    assert slope.shape == (0, 4)
