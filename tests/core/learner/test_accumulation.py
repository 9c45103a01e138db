"""A batch in parts is one step; rows may have weights."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import metaloss
from metaloss import SGD, Adam, Mixed, MLPLoss
from metaloss.errors import MetalossError
from metaloss.losses import CrossEntropy
from metaloss.losses.mlp import MLPLossConfig
from metaloss.losses.of_rows.meta_weight import MetaWeight, MetaWeightConfig

from .explicit_unroll import slope_of
from .learner_setups import learner_of, net, pair, seeded

RANKED = MLPLossConfig(inputs=["target", "prediction", "rank"])


def parts(batch, sizes):
    columns = [value.split(sizes) for value in batch]
    return list(zip(*columns, strict=True))


def assert_same(one, other, within=1e-9):
    for a, b in ((one.model, other.model), (one.loss, other.loss)):
        for name, value in b.state_dict().items():
            torch.testing.assert_close(
                a.state_dict()[name], value, rtol=within, atol=1e-12, msg=name
            )


def moved(learner):
    start = seeded(MLPLoss).double().state_dict()
    return any(not torch.equal(start[n], v) for n, v in learner.loss.state_dict().items())


ENGINES = ["mixed", "torchopt", "higher", "finite_difference"]


@pytest.mark.parametrize(
    ("engine", "compile"), [*((engine, "off") for engine in ENGINES), ("mixed", "trace")]
)
def test_four_parts_of_32_rows_are_one_step_of_128(engine, compile):
    given = {"meta_optimizer": engine, "inner": Adam(lr=0.05, clip=0.01), "compile": compile}
    one, other = (learner_of(net(nn.LayerNorm(8), nn.Tanh()), **given) for _ in "ab")
    for step in range(3):
        batch, meta = pair(step, 128), pair(50 + step, 64)
        seen = one.step(parts(batch, [32] * 4), parts(meta, [32, 32]), accumulate=True)
        expected = other.step(batch, meta)
        for a, b in zip(seen[:3], expected[:3], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
        assert_same(one, other, within=1e-9 if engine != "finite_difference" else 1e-7)
    assert moved(one)


def test_parts_of_different_sizes_and_ignored_targets_count_by_their_rows():
    batch = pair(0, 20)
    batch[1][3:9] = -100
    one, other = (learner_of(net(nn.Tanh())) for _ in "ab")
    one.step(parts(batch, [4, 9, 7]), pair(1), accumulate=True)
    other.step(batch, pair(1))
    assert_same(one, other)


def test_weights_of_rows_survive_accumulation():
    batch = (*pair(0, 20), torch.rand(20, dtype=torch.float64, generator=torch.Generator()))
    one, other = (learner_of(net(nn.Tanh())) for _ in "ab")
    one.step(parts(batch, [4, 9, 7]), parts(batch, [10, 10]), accumulate=True)
    other.step(batch, batch)
    assert_same(one, other)


def test_a_part_begins_with_the_buffers_that_the_one_before_has_left():
    model = net(nn.BatchNorm1d(8))
    plain = copy.deepcopy(model)
    learner = learner_of(model, CrossEntropy(), inner=SGD(lr=0.5))
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.5)
    for step in range(3):
        given = parts(pair(step, 20), [8, 12])
        learner.step(given, accumulate=True)
        optimizer.zero_grad()
        for inputs, targets in given:
            (F.cross_entropy(plain(inputs), targets) * len(targets) / 20).backward()
        optimizer.step()
        for name, value in plain.state_dict().items():
            torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-10, atol=1e-12)


def test_the_parts_of_a_meta_gradient_have_their_own_buffers():
    """A model whose outputs depend on a buffer that every pass changes."""

    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(5, 3)
            self.register_buffer("count", torch.ones(()))

        def forward(self, x):
            out = self.layer(x) * self.count.clone()
            self.count.mul_(1.5)
            return out

    found = []
    for engine in ("mixed", "torchopt"):
        learner = learner_of(seeded(Counts).double(), meta_optimizer=engine)
        learner.step(parts(pair(0), [6, 6]), pair(1), accumulate=True)
        found.append(learner)
    assert moved(found[0])
    assert_same(*found)


def test_parts_draw_different_dropout_masks():
    seen = []

    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.drop = nn.Linear(5, 3), nn.Dropout(0.5)

        def forward(self, x):
            kept = self.drop(torch.ones_like(x))
            seen.append(kept.detach().clone())
            return self.layer(x * kept)

    model = seeded(Keeps).double()
    learner_of(model).step(parts(pair(0), [6, 6]), accumulate=True)
    assert not torch.equal(seen[-2], seen[-1])


def test_some_rows_and_parts_are_not_mixed():
    learner = learner_of(net(), meta_optimizer=Mixed(rows=0.5))
    with pytest.raises(MetalossError, match=r"rows=0.5 with accumulate=True: expected one"):
        learner.step([pair(0)], pair(1), accumulate=True)


def total(outputs, target):
    return F.cross_entropy(outputs, target, reduction="sum")


@pytest.mark.parametrize("sizes", [[6, 6], [1, 1, 10]])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"loss": lambda: MLPLoss(RANKED)}, "the loss MLPLoss is not a mean"),
        (
            {"loss": lambda: MetaWeight(MetaWeightConfig(normalize=True))},
            "MetaWeight is not a mean",
        ),
        ({"task_loss": lambda: total}, "the task loss is not a mean"),
    ],
)
def test_a_loss_of_the_whole_batch_takes_no_parts(given, message, sizes):
    made = {name: seeded(make) for name, make in given.items()}
    loss = made.get("loss", seeded(MLPLoss)).double()
    learner = metaloss.Learner(
        net(), loss, task_loss=made.get("task_loss", F.cross_entropy), inner=SGD(lr=0.3)
    )
    learner.step(pair(0), pair(1))  # whole batches are taken
    with pytest.raises(MetalossError, match=f"{message} over the rows of a batch, so that accum"):
        learner.step(parts(pair(0), sizes), pair(1), accumulate=True)


class Weighted(nn.Module):
    """The learned loss of rows that have weights, with the weights inside."""

    def __init__(self, loss, weights):
        super().__init__()
        self.loss, self.weights = loss, weights

    def forward(self, outputs, targets):
        values = torch.stack(
            [self.loss(z[None], t[None]) for z, t in zip(outputs, targets, strict=True)]
        )
        return (values * self.weights).sum() / self.weights.sum()


@pytest.mark.parametrize("engine", ENGINES[:3])
def test_the_meta_gradient_with_weights_is_that_of_weighted_means(engine):
    draw = torch.Generator().manual_seed(3)
    weights = torch.rand(12, generator=draw, dtype=torch.float64)
    weights[4] = 0.0
    model, loss = net(nn.Tanh()), seeded(MLPLoss).double()
    options = {name: {"lr": 0.3} for name, _ in model.named_parameters()}
    inside = Weighted(loss, weights)
    right = slope_of(model, inside, [pair(0), pair(1)], pair(2), "sgd", options)
    found = metaloss.meta_gradient(
        model,
        loss,
        [(*pair(0), weights), (*pair(1), weights)],
        pair(2),
        inner=SGD(lr=0.3),
        task_loss=F.cross_entropy,
        engine=engine,
    )
    assert any(value.norm() > 1e-9 for value in right.values())
    for name, value in found.items():
        torch.testing.assert_close(value, right[f"loss.{name}"], rtol=1e-9, atol=1e-13)


def test_the_task_loss_of_weighted_rows_is_their_weighted_mean():
    weights = torch.tensor([1.0, 2.0, 3.0] * 4, dtype=torch.float64)
    inputs, targets = pair(1)
    learner = learner_of(net())
    start = copy.deepcopy(learner.model)
    seen = learner.evaluate([(inputs, targets, weights)])
    with torch.no_grad():
        outputs = start(inputs)
    each = F.cross_entropy(outputs, targets, reduction="none")
    assert seen == pytest.approx(float((each * weights).sum() / weights.sum()))
    # Class weights are weights of rows.
    classes = torch.tensor([1.0, 5.0, 0.5], dtype=torch.float64)
    seen = learner.evaluate([(inputs, targets, classes[targets])])
    assert seen == pytest.approx(float(F.cross_entropy(outputs, targets, weight=classes)))


def test_weights_must_be_one_a_row():
    with pytest.raises(MetalossError, match=r"weights of shape \(3,\): expected one for each row"):
        learner_of(net()).step((*pair(0), torch.ones(3)))
