"""What a user changes in a model or a loss between steps is what the next step works with."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import metaloss
from metaloss.inner import SGD, Adam, RMSprop
from metaloss.losses import MLPLoss, Scaled

from .learner_setups import learner_of, net, pair, seeded

OPTIMIZERS = {
    "sgd": (
        SGD(lr=0.3, momentum=0.8, dampening=0.3, weight_decay=0.1),
        lambda p: torch.optim.SGD(p, 0.3, 0.8, dampening=0.3, weight_decay=0.1),
    ),
    "adam": (Adam(lr=0.05), lambda p: torch.optim.Adam(p, 0.05)),
    "rmsprop": (
        RMSprop(lr=0.01, momentum=0.5),
        lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.5),
    ),
}


def plain_step(model, optimizer, batch):
    optimizer.zero_grad()
    F.cross_entropy(model(batch[0]), batch[1]).backward()
    optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_freezing_and_unfreezing_is_that_of_torch(name):
    """A frozen layer sits steps out, a new one begins with no steps behind it."""
    inner, of = OPTIMIZERS[name]
    model = net(nn.Tanh())
    model[0].requires_grad_(False)
    plain = copy.deepcopy(model)
    learner, optimizer = learner_of(model, Scaled().double(), inner=inner), of(plain.parameters())
    frozen = {2: (0, True), 4: (2, False), 6: (2, True), 7: (0, False), 9: (0, True)}
    for step in range(12):
        if step in frozen:
            layer, trained = frozen[step]
            for one in (model, plain):
                one[layer].requires_grad_(trained)
        learner.step(pair(step))
        plain_step(plain, optimizer, pair(step))
        for key, value in plain.state_dict().items():
            torch.testing.assert_close(
                model.state_dict()[key], value, rtol=1e-9, atol=1e-12, msg=f"{step}: {key}"
            )


class Sometimes(nn.Module):
    """A layer that some steps do not use, and one that none does."""

    def __init__(self):
        super().__init__()
        self.always, self.some, self.never = nn.Linear(5, 3), nn.Linear(5, 3), nn.Linear(2, 2)
        self.uses = True

    def forward(self, x):
        return self.always(x) + (self.some(x) if self.uses else 0)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_parameter_without_a_gradient_is_left_alone(name):
    inner, of = OPTIMIZERS[name]
    model = seeded(Sometimes).double()
    plain = copy.deepcopy(model)
    learner, optimizer = learner_of(model, Scaled().double(), inner=inner), of(plain.parameters())
    for step in range(9):
        model.uses = plain.uses = step % 3 != 1
        learner.step(pair(step))
        plain_step(plain, optimizer, pair(step))
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("engine", ["torchopt", "higher", "finite_difference"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_engines_agree_where_parameters_are_not_used(name, engine):
    inner, _ = OPTIMIZERS[name]
    found = []
    for kind in ("mixed", engine):
        gradient = metaloss.meta_gradient(
            seeded(Sometimes).double(),
            seeded(MLPLoss).double(),
            [pair(0), pair(1)],
            pair(2),
            inner=inner,
            task_loss=F.cross_entropy,
            engine=kind,
        )
        found.append(torch.cat([value.flatten() for value in gradient.values()]))
    assert found[0].norm() > 1e-6
    gap = float((found[1] - found[0]).norm() / found[0].norm())
    assert gap < (1e-3 if engine == "finite_difference" else 1e-9)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("part", [None, 1])
def test_modes_are_obeyed(when, part):
    model = net(nn.BatchNorm1d(8), nn.Dropout(0.5))
    aim = model if part is None else model[part]
    if when == "before":
        aim.eval()
    learner = learner_of(model)
    if when == "after":
        learner.step(pair(0))
        aim.eval()
    statistics = model[1].running_mean.clone()
    plain = copy.deepcopy(model)
    losses = learner.step(pair(1), pair(2))
    assert torch.equal(model[1].running_mean, statistics)
    assert not model[1].training
    if part is None:
        # Without dropout, with the statistics as they were.
        outputs = plain(pair(1)[0])
        torch.testing.assert_close(losses.train_task[0], F.cross_entropy(outputs, pair(1)[1]))
    aim.train()
    learner.step(pair(3))
    assert not torch.equal(model[1].running_mean, statistics)


def test_dropout_hooks_and_parts_are_those_of_now():
    model = net(nn.Dropout(0.0))
    learner = learner_of(model)
    learner.step(pair(0), pair(1))
    model[1].p = 1.0
    weight = model[0].weight.clone()
    learner.step(pair(1))
    assert torch.equal(model[0].weight, weight)
    model[1].p = 0.0
    seen = []
    handle = model[0].register_forward_hook(lambda *_: seen.append(1))
    learner.step(pair(2))
    assert seen
    handle.remove()
    model[2] = seeded(lambda: nn.Sequential(nn.ReLU(), nn.Linear(8, 3))).double()
    head = model[2][1].weight.clone()
    learner.step(pair(3), pair(4))
    assert not torch.equal(model[2][1].weight, head)


def test_a_traced_learner_follows_as_well():
    model, eager = net(nn.Dropout(0.0)), net(nn.Dropout(0.0))
    traced, plain = learner_of(model, compile="trace"), learner_of(eager)
    for step, p in enumerate((0.0, 0.4, 0.4, 0.0)):
        for one in (model, eager):
            one[1].p = p
            one[0].requires_grad_(step != 2)
        traced.step(pair(step), pair(step + 9))
        plain.step(pair(step), pair(step + 9))
        for key, value in eager.state_dict().items():
            torch.testing.assert_close(model.state_dict()[key], value, rtol=1e-9, atol=1e-12)


def test_frozen_weights_that_are_loaded_later_are_used():
    model, other = net(nn.Tanh()), net(nn.Tanh())
    model[0].requires_grad_(False)
    learner = learner_of(model)
    with torch.no_grad():
        other[0].weight.add_(1)
    model.load_state_dict(other.state_dict())
    inputs, targets = pair(0)
    expected = float(F.cross_entropy(other(inputs), targets).detach())
    assert learner.evaluate([(inputs, targets)]) == pytest.approx(expected, rel=1e-12)
    assert float(learner.step((inputs, targets)).train_task) == pytest.approx(expected, rel=1e-12)


def test_frozen_parts_of_the_loss_stay():
    loss = seeded(MLPLoss).double()
    first, *others = loss.parameters()
    first.requires_grad_(False)
    before = [value.clone() for value in (first, *others)]
    learner = learner_of(net(nn.Tanh()), loss)
    for step in range(3):
        learner.step(pair(step), pair(step + 9))
    assert torch.equal(first, before[0])
    assert not any(torch.equal(a, b) for a, b in zip(others, before[1:], strict=True))
    first.requires_grad_(True)
    learner.step(pair(5), pair(6))
    assert not torch.equal(first, before[0])


def test_a_frozen_parameter_that_is_replaced_is_the_one_that_is_used():
    model, other = net(nn.Tanh()), net(nn.Tanh())
    model[0].requires_grad_(False)
    learner = learner_of(model)
    learner.step(pair(0), pair(1))
    with torch.no_grad():
        other[0].weight.add_(1)
    loaded = {name: value.clone() for name, value in other[0].state_dict().items()}
    model[0].load_state_dict(loaded, assign=True)
    model[0].requires_grad_(False)
    expected = F.cross_entropy(model(pair(2)[0]), pair(2)[1]).item()
    assert learner.evaluate([pair(2)]) == pytest.approx(expected, rel=1e-12)
    learner.step(pair(3), pair(4))
    assert torch.equal(model[0].weight, other[0].weight)


def test_a_new_head_of_another_shape_begins_anew():
    model = net(nn.Tanh())
    learner = learner_of(model, inner=Adam(lr=0.05))
    learner.step(pair(0), pair(1))
    model[2] = seeded(lambda: nn.Linear(8, 5)).double()
    plain = copy.deepcopy(model)
    optimizer = torch.optim.Adam(plain[2].parameters(), lr=0.05)
    optimizer.zero_grad()
    still = learner_of(copy.deepcopy(model), Scaled().double(), inner=Adam(lr=0.05))
    still.step(pair(2))
    learner.step(pair(2), pair(3))
    F.cross_entropy(plain(pair(2)[0]), pair(2)[1]).backward()
    optimizer.step()
    torch.testing.assert_close(still.model[2].weight, plain[2].weight)
    assert model[2].weight.shape == (5, 8)


@pytest.mark.parametrize("change", ["hook", "list", "dict", "function"])
def test_a_traced_learner_sees_what_is_in_containers_and_hooks(change):
    class Held(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = nn.Linear(5, 8), nn.Linear(8, 3)
            self.scale, self.table, self.act = [1.0], {"a": 1.0}, torch.tanh

        def forward(self, x):
            return self.head(self.act(self.layer(x)) * self.scale[0] * self.table["a"])

    def changed(model):
        if change == "hook":
            model.layer.register_forward_hook(lambda part, given, out: 3 * out)
        elif change == "list":
            model.scale[0] = 3.0
        elif change == "dict":
            model.table["a"] = 3.0
        else:
            model.act = torch.relu

    models = [seeded(Held).double() for _ in "ab"]
    one, other = (
        learner_of(m, compile=kind) for m, kind in zip(models, ("off", "trace"), strict=True)
    )
    for step in range(3):
        for learner in (one, other):
            learner.step(pair(step), pair(step + 9))
        if step == 0:
            for model in models:
                changed(model)
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-12)


def test_a_hook_that_takes_the_place_of_another_is_seen():
    model = net(nn.Tanh())
    learner = learner_of(model)
    for number in range(3):
        handle = model[0].register_forward_hook(lambda part, given, out: out * 0.5)
        learner.step(pair(number), pair(9))
        handle.remove()
        del handle
        handle = model[0].register_forward_hook(lambda p, g, out: out + torch.randn_like(out))
        before = torch.get_rng_state()
        learner.step(pair(number), pair(9))
        assert torch.equal(before, torch.get_rng_state())
        handle.remove()
