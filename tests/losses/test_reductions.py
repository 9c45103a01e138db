import numpy as np
import pytest
import torch

from metaloss.errors import MetalossError
from metaloss.losses import ClassReduction, LearnedLoss
from metaloss.types import Link

from .families import CASES, build, rows


class Product(LearnedLoss):
    """A family of two lines whose numbers are easily made by hand: p² (1 + t)."""

    def pointwise(self, prediction, target):
        return prediction**2 * (1 + target)


WEIGHTS = torch.tensor([0.0, 2.0, 1.0, 0.5, 3.0, 0.25], dtype=torch.float64)


@pytest.mark.parametrize("reduction", list(ClassReduction))
@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 3), (6, 4, 3, 2)])
def test_weights_and_ignored_rows_follow_the_formula(shape, reduction):
    outputs, target = rows(Link.softmax, shape)
    target.flatten()[::5] = -100
    loss = Product(class_reduction=reduction)
    p = np.exp(outputs.numpy())
    p /= p.sum(1, keepdims=True)
    total, mass = 0.0, 0.0
    for place in np.ndindex(*target.shape):
        if target[place] == -100:
            continue
        here = p[place[0], :, *place[1:]]
        values = here**2 * (1 + (np.arange(4) == target[place].item()))
        weight = WEIGHTS[place[0]].item()
        total += weight * (values.mean() if reduction is ClassReduction.mean else values.sum())
        mass += weight
    np.testing.assert_allclose(loss(outputs, target, WEIGHTS).item(), total / mass, rtol=1e-12)


@pytest.mark.parametrize(("name", "link"), CASES)
def test_a_weight_counts_a_row_that_often(name, link):
    loss = build(name, link)
    outputs, target = rows(link)
    counts = torch.tensor([0, 2, 1, 3, 1, 0])
    repeated = loss(outputs.repeat_interleave(counts, 0), target.repeat_interleave(counts, 0))
    torch.testing.assert_close(loss(outputs, target, counts), repeated)
    torch.testing.assert_close(loss(outputs, target, torch.ones(6)), loss(outputs, target))


@pytest.mark.parametrize(("name", "link"), [case for case in CASES if case[1] is Link.softmax])
def test_a_batch_without_rows_that_count_is_zero_and_moves_nothing(name, link):
    loss = build(name, link)
    outputs, target = rows(link)
    outputs.requires_grad_()
    for found in (
        loss(outputs, torch.full_like(target, -100)),
        loss(outputs, target, torch.zeros(6)),
    ):
        assert found == 0
        (slope,) = torch.autograd.grad(found, outputs)
        assert torch.equal(slope, torch.zeros_like(outputs))


def test_the_ignored_index_can_be_chosen():
    outputs, target = rows(Link.softmax)
    loss = Product(ignore_index=2)
    kept = target != 2
    assert 0 < kept.sum() < len(target)
    torch.testing.assert_close(loss(outputs, target), Product()(outputs[kept], target[kept]))


def test_class_indices_equal_their_one_hot_rows():
    outputs, target = rows(Link.softmax, (6, 4, 3))
    soft = torch.nn.functional.one_hot(target, 4).movedim(-1, 1).double()
    torch.testing.assert_close(Product()(outputs, soft), Product()(outputs, target))


def test_flat_regression_equals_one_column():
    outputs, target = rows(Link.identity, (6, 1))
    loss = Product(link="identity")
    aim = loss(outputs, target)
    torch.testing.assert_close(loss(outputs[:, 0], target[:, 0]), aim)
    torch.testing.assert_close(loss(outputs[:, 0], target), aim)


def test_integer_targets_serve_regression_and_yes_no_outputs():
    outputs, target = rows(Link.sigmoid)
    for link in ("sigmoid", "identity"):
        loss = Product(link=link)
        torch.testing.assert_close(loss(outputs, target.long()), loss(outputs, target))


def test_a_row_has_the_same_value_in_any_precision():
    outputs, target = rows(Link.softmax)
    loss = build("mlp")
    low = loss.float()(outputs.float(), target).double()
    torch.testing.assert_close(low, build("mlp")(outputs, target), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("link", "outputs", "target", "message"),
    [
        (
            "softmax",
            torch.zeros(4, 3),
            torch.zeros(5, dtype=torch.int64),
            r"target has shape \(5,\) and type torch.int64, expected class indices \(4,\) or "
            r"probabilities \(4, 3\) for raw outputs of shape \(4, 3\) with link=softmax",
        ),
        ("softmax", torch.zeros(4, 3), torch.zeros(4), "expected class indices"),
        ("softmax", torch.zeros(4, 3), torch.zeros(4, 3).long(), "expected class indices"),
        ("softmax", torch.zeros(4, 3, 2), torch.zeros(4).long(), r"class indices \(4, 2\)"),
        ("identity", torch.zeros(4, 3), torch.zeros(4), r"expected \(4, 3\) for raw outputs"),
        ("identity", torch.zeros(4, 1), torch.zeros(4), r"expected \(4, 1\) for raw outputs"),
        ("sigmoid", torch.zeros(4, 3), torch.zeros(4).long(), r"expected \(4, 3\)"),
    ],
)
def test_targets_that_do_not_fit_are_refused(link, outputs, target, message):
    with pytest.raises(MetalossError, match=message):
        Product(link=link)(outputs, target)


@pytest.mark.parametrize("shape", [(5,), (6, 4), (6, 1), ()])
def test_weights_that_do_not_fit_are_refused(shape):
    outputs, target = rows(Link.softmax)
    with pytest.raises(MetalossError, match=r"expected one weight a row: \(6,\)"):
        Product()(outputs, target, torch.ones(shape))
    with pytest.raises(MetalossError, match=r"^weight is a list: expected a tensor \(B,\)"):
        Product()(outputs, target, [1.0] * 6)


def test_an_unknown_link_is_refused_with_the_nearest():
    with pytest.raises(MetalossError, match="unknown link 'sofmax': did you mean 'softmax'"):
        Product(link="sofmax")


def test_a_family_without_a_formula_is_refused():
    with pytest.raises(TypeError, match=r"must define pointwise\(\), per_output\(\) or per_row"):
        LearnedLoss()(torch.zeros(2, 2), torch.zeros(2).long())


def test_a_loss_prints_its_link_and_reduction():
    assert repr(Product()) == "Product(link=softmax, class_reduction=mean)"
    assert "ignore_index=255" in repr(Product(ignore_index=255))
