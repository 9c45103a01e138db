"""Rows with weights and rows that do not count; what a step refuses."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import metaloss
from metaloss.errors import MetalossError

from .learner_setups import learner_of, net, pair


class PerPosition(nn.Module):
    """Outputs (B, 3, 4) at four positions of a row."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 12)

    def forward(self, x):
        return self.layer(x).unflatten(1, (3, 4))


def partly_ignored(positions):
    inputs, targets = pair(0)
    if positions:
        targets = torch.randint(3, (12, 4), generator=torch.Generator().manual_seed(1))
        targets[2, :3] = -100
    targets[5] = -100
    return inputs, targets


@pytest.mark.parametrize("positions", [False, True])
@pytest.mark.parametrize("accumulate", [False, True])
def test_equal_weights_are_no_weights_where_targets_are_ignored(positions, accumulate):
    batch = partly_ignored(positions)
    model = PerPosition().double() if positions else net(nn.Tanh())
    one, other = (learner_of(copy.deepcopy(model)) for _ in "ab")
    weighted = (*batch, torch.full((12,), 0.5, dtype=torch.float64))
    given = [tuple(value[k : k + 4] for value in weighted) for k in (0, 4, 8)]
    seen = one.step(given if accumulate else weighted, weighted, accumulate=accumulate)
    right = other.step(batch, batch)
    for a, b in zip(seen[:3], right[:3], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    for a, b in zip(one.loss.parameters(), other.loss.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    outputs = model(batch[0])
    expected = F.cross_entropy(outputs, batch[1]).item()
    start = learner_of(model)
    # Batches of unequal numbers of counted positions, one of them without any.
    halves = [tuple(value[a:b] for value in batch) for a, b in ((0, 5), (5, 6), (6, 12))]
    assert start.evaluate(halves) == pytest.approx(expected)
    assert start.evaluate([weighted]) == pytest.approx(expected)


def test_a_row_of_weight_0_may_have_any_target():
    inputs, targets = pair(0)[0], torch.randn(12, 1, dtype=torch.float64)
    targets[3] = float("nan")
    weights = torch.ones(12, dtype=torch.float64)
    weights[3] = 0.0
    learner = metaloss.Learner(
        nn.Linear(5, 1).double(),
        metaloss.MLPLoss(link="identity").double(),
        task_loss=F.mse_loss,
    )
    rest = torch.arange(12) != 3
    outputs = learner.model(inputs)
    expected = F.mse_loss(outputs[rest], targets[rest]).item()
    assert learner.evaluate([(inputs, targets, weights)]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ([1.0, -2.0, 1.0], "batch has a weight of -2: expected finite numbers ≥ 0"),
        ([1.0, float("nan"), 1.0], "a weight of nan"),
        ([1.0, float("inf"), 1.0], "a weight of inf"),
        ([1, 2, 1], r"in floating point; got torch.int64"),
        ([[1.0], [2.0], [1.0]], r"weights of shape \(3, 1\)"),
    ],
)
def test_wrong_weights_are_refused(weights, said):
    batch = (*pair(0, 3), torch.tensor(weights))
    learner = learner_of(net())
    with pytest.raises(MetalossError, match=said):
        learner.step(batch)
    with pytest.raises(MetalossError, match=said):
        learner.step(pair(0), batch)
    with pytest.raises(MetalossError, match=said):
        learner.evaluate([batch])


def test_a_batch_without_rows_is_refused():
    learner, none = learner_of(net()), tuple(value[:0] for value in pair(0))
    for given in ((none,), (pair(0), none), ([pair(0), none],)):
        with pytest.raises(MetalossError, match="a batch has no rows"):
            learner.step(*given, accumulate=len(given) == 1)


@pytest.mark.parametrize("of_torch", [True, False])
def test_a_task_loss_with_weights_of_classes_is_no_mean_over_rows(of_torch):
    classes = torch.tensor([1.0, 5.0, 0.5], dtype=torch.float64)
    task_loss = nn.CrossEntropyLoss(weight=classes)
    if not of_torch:
        task_loss = partial(F.cross_entropy, weight=classes)
    learner = metaloss.Learner(net(), metaloss.MLPLoss().double(), task_loss=task_loss)
    assert learner.step(pair(0), pair(1)).taken
    for given, parts in (((*pair(0), torch.ones(12)), False), ([pair(0), pair(1)], True)):
        with pytest.raises(MetalossError, match="task_loss has weights of classes"):
            learner.step(given, pair(1), accumulate=parts)
    weighted = (*pair(0), torch.ones(12, dtype=torch.float64))
    with pytest.raises(MetalossError, match="the metric has weights of classes"):
        learner.evaluate([weighted])
    options = {"inner": "sgd", "task_loss": task_loss}
    with pytest.raises(MetalossError, match="task_loss has weights of classes"):
        metaloss.meta_gradient(learner.model, learner.loss, [weighted], pair(1), **options)


@pytest.mark.parametrize("rate", ["x", None, {"lr": 0.1}, [0.1, 0.2], lambda step: "x"])
def test_a_rate_that_is_no_number_is_refused(rate):
    with pytest.raises(MetalossError, match=r"lr=.*: expected a number ≥ 0$"):
        learner_of(net()).set_lr(rate)


def test_a_scheduler_that_has_ended_is_named():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.1, total_steps=3, cycle_momentum=False
    )
    learner = learner_of(model, inner=scheduler)
    for _ in range(4):
        learner.step(pair(0))
    with pytest.raises(MetalossError, match="OneCycleLR without a rate for step 4"):
        learner.step(pair(0))


def test_a_task_loss_or_a_metric_for_each_row_is_refused():
    def rows(outputs, targets):
        return F.cross_entropy(outputs, targets, reduction="none")

    model = net()
    learner = metaloss.Learner(model, metaloss.MLPLoss().double(), task_loss=rows)
    start = copy.deepcopy(model.state_dict())
    for meta in (None, pair(1)):
        with pytest.raises(MetalossError, match=r"task_loss returns the shape \(12,\)"):
            learner.step(pair(0), meta)
    assert all(torch.equal(value, start[name]) for name, value in model.state_dict().items())
    with pytest.raises(MetalossError, match=r"the metric returns the shape \(12,\)"):
        learner.evaluate([pair(0)])
    given = {"inner": metaloss.SGD(lr=0.1), "task_loss": rows}
    with pytest.raises(MetalossError, match=r"task_loss returns the shape \(12,\)"):
        metaloss.meta_gradient(model, learner.loss, [pair(0)], pair(1), **given)


def test_the_metric_of_a_run_is_a_scalar(tmp_path):
    def wrong(outputs, targets):
        return (outputs.argmax(1) != targets).double()

    rows = tuple(value.float() if value.is_floating_point() else value for value in pair(0, 40))
    options = metaloss.TaskOptions(metric=wrong, metric_name="wrong")
    task = metaloss.task_from_data(rows, test=rows, options=options)
    words = ["schedule=static", "loss=cross_entropy", "steps=1", "tracker=[]", "compile=off"]
    with pytest.raises(MetalossError, match=r"metric wrong returns \(6,\); expected a scalar"):
        metaloss.train([*words, f"output={tmp_path / 'run'}"], task=task)


def test_a_metric_that_vmap_cannot_compute_is_named():
    def wrong(outputs, targets):
        return torch.tensor((outputs.argmax(1) != targets).double().mean().item())

    learner, weights = learner_of(net()), torch.ones(12)
    assert 0 <= learner.evaluate([pair(0)], metric=wrong) <= 1
    with pytest.raises(MetalossError, match=r"with weights of rows, wrong is computed for each"):
        learner.evaluate([(*pair(0), weights)], metric=wrong)
