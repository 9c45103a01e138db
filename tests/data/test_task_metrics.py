import math
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from metaloss.data.targets.constant import fitted_constant
from metaloss.data.targets.kinds import Classes, Values, YesNo
from metaloss.data.targets.metrics import binary_error, error_rate, mse
from metaloss.errors import MetalossError


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def classes(*shape, count=5, seed=1):
    return torch.randint(0, count, shape, generator=torch.Generator().manual_seed(seed))


def test_error_rate_counts_wrong_guesses():
    outputs, targets = drawn(50, 5), classes(50)
    wrong = sum(int(row.argmax()) != int(t) for row, t in zip(outputs, targets, strict=True))
    assert 0 < wrong < 50
    assert error_rate(outputs, targets).item() == pytest.approx(wrong / 50)


def test_error_rate_leaves_ignored_places_out_like_cross_entropy():
    outputs, targets = drawn(6, 5, 3, 2), classes(6, 3, 2)
    ignored = targets.clone()
    ignored[0] = -100
    assert error_rate(outputs, ignored) == error_rate(outputs[1:], targets[1:])
    assert F.cross_entropy(outputs, ignored).item() == pytest.approx(
        F.cross_entropy(outputs[1:], targets[1:]).item()
    )


def test_error_rate_takes_the_largest_soft_label():
    outputs, targets = drawn(50, 5), classes(50)
    soft = 0.8 * F.one_hot(targets, 5).double() + 0.2 / 5
    assert error_rate(outputs, soft) == error_rate(outputs, targets)


def test_binary_error_counts_wrong_signs():
    outputs = torch.tensor([[0.1, -3.0], [2.0, 0.5]])
    assert binary_error(outputs, torch.tensor([[1.0, 0.0], [0.0, 0.0]])).item() == 0.5


@pytest.mark.parametrize("metric", [mse, binary_error])
def test_shapes_that_would_broadcast_are_refused(metric):
    message = rf"{metric.__name__}: outputs \(4, 1\) and targets \(4,\): expected equal shapes"
    with pytest.raises(MetalossError, match=message):
        metric(torch.zeros(4, 1), torch.zeros(4))


def test_mse_is_the_mean_square():
    outputs, targets = drawn(7, 2), drawn(7, 2, seed=3)
    expected = sum(float(d) ** 2 for d in (outputs - targets).flatten()) / 14
    assert mse(outputs, targets).item() == pytest.approx(expected)


@pytest.mark.parametrize("metric", [error_rate, binary_error, mse])
def test_metrics_vectorise_over_a_population(metric):
    outputs = drawn(3, 8, 5)
    targets = classes(8) if metric is error_rate else classes(8, 5, count=2).double()
    together = torch.func.vmap(metric, in_dims=(0, None))(outputs, targets)
    one_by_one = torch.stack([metric(member, targets) for member in outputs])
    assert together.shape == (3,)
    torch.testing.assert_close(together, one_by_one)


def test_entropy_is_the_cross_entropy_of_the_frequencies():
    targets = classes(200, count=4)
    logits = (torch.bincount(targets) / 200).double().log().expand(200, 4)
    assert Classes().constant_loss(targets, 4) == pytest.approx(
        F.cross_entropy(logits, targets).item()
    )


def test_no_constant_beats_the_entropy():
    targets = classes(200, count=4)
    best = Classes().constant_loss(targets, 4)
    trials = drawn(500, 4) * 0.3 + (torch.bincount(targets) / 200).log()
    losses = [F.cross_entropy(t.expand(200, 4), targets).item() for t in trials]
    assert best < min(losses) < best + 0.01


def test_entropy_with_an_absent_class_ignored_places_and_soft_labels():
    assert Classes().constant_loss(torch.tensor([0, 1, -100, -100]), 3) == pytest.approx(
        math.log(2)
    )
    assert Classes().constant_loss(
        torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0]]), 3
    ) == pytest.approx(math.log(2))


CASES = {
    "classes": (classes(60, count=3), 3, F.cross_entropy, lambda t: Classes().constant_loss(t, 3)),
    "smoothed": (
        classes(60, count=3),
        3,
        partial(F.cross_entropy, label_smoothing=0.2),
        lambda t: Classes(label_smoothing=0.2).constant_loss(t, 3),
    ),
    "places": (classes(9, 4, count=3), 3, F.cross_entropy, lambda t: Classes().constant_loss(t, 3)),
    "yes_no": (
        classes(60, 2, count=2).double(),
        2,
        F.binary_cross_entropy_with_logits,
        lambda t: YesNo().constant_loss(t, 2),
    ),
    "values": (drawn(60, 2) * 3 + 100, 2, F.mse_loss, lambda t: Values().constant_loss(t, 2)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_numerical_constant_equals_the_closed_form(case):
    targets, outputs, task_loss, closed_form = CASES[case]
    assert fitted_constant(targets, outputs, task_loss)[0] == pytest.approx(
        closed_form(targets), rel=1e-6
    )


def test_the_numerical_constant_finds_the_median_of_absolute_errors():
    targets = drawn(101, 1) + 2
    best = (targets - targets.median()).abs().mean().item()
    assert fitted_constant(targets, 1, F.l1_loss)[0] == pytest.approx(best, rel=1e-3)
