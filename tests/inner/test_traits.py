"""What a forward pass does beside computing: carried along, repeated, or refused."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import metaloss
from metaloss.errors import MetalossError
from metaloss.inner import SGD, FunctionalModel
from metaloss.losses import MLPLoss, Scaled

from .small import Layer, batch, seeded


def test_a_running_mean_in_a_plain_attribute_is_part_of_the_state():
    def centred(model, h):
        if model.training:
            model.mean = 0.9 * model.mean + 0.1 * h.detach().mean(0)
        return h - model.mean

    def build():
        model = seeded(lambda: Layer(centred)).double()
        model.mean = torch.zeros(8).double()
        return model

    model, plain = build(), build()
    learner = metaloss.Learner(
        model, Scaled().double(), task_loss=F.cross_entropy, inner=SGD(lr=0.5)
    )
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.5)
    for step in range(4):
        pair = batch(step)
        learner.step(pair)
        optimizer.zero_grad()
        F.cross_entropy(plain(pair[0]), pair[1]).backward()
        optimizer.step()
    assert plain.mean.abs().max() > 0.01
    torch.testing.assert_close(model.mean, plain.mean)
    torch.testing.assert_close(model.first.weight, plain.first.weight)
    saved = learner.state_dict()
    model.mean = torch.ones(8).double()
    learner.load_state_dict(saved)
    torch.testing.assert_close(model.mean, plain.mean)


def hidden_state(model, h):
    state = model.__dict__.get("state")
    model.state = h.detach().mean(0)
    return h if state is None else h + state


def pass_counter(model, h):
    model.passes = model.__dict__.get("passes", 0) + 1
    return h


def growing_list(model, h):
    model.seen.append(1)
    return h


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (hidden_state, "outputs differ between two forward passes over the same rows"),
        (pass_counter, "part 'itself' changes its attribute 'passes' in every forward pass"),
        (growing_list, "part 'itself' changes its attribute 'seen' in every forward pass"),
    ],
)
def test_what_no_pass_can_repeat_is_refused_and_put_back(function, message):
    model = seeded(lambda: Layer(function))
    model.seen = []
    before = {name: value for name, value in vars(model).items() if not name.startswith("_")}
    learner = metaloss.Learner(model, MLPLoss(), task_loss=F.cross_entropy)
    inputs, targets = batch(0)
    with pytest.raises(MetalossError, match=message):
        learner.step((inputs.float(), targets), (inputs.float(), targets))
    assert {n: v for n, v in vars(model).items() if not n.startswith("_")} == before
    assert model.seen == []


def test_what_is_only_remembered_is_allowed_and_leaves_no_trace():
    def cached(model, h):
        if "cache" not in vars(model):
            model.cache = torch.ones(8)
        model.shape = h.shape
        model.kept = h
        return h * model.cache

    model = seeded(lambda: Layer(cached))
    learner = metaloss.Learner(model, MLPLoss(), task_loss=F.cross_entropy)
    inputs, targets = batch(0)
    learner.step((inputs.float(), targets), (inputs.float(), targets))
    assert "kept" not in vars(model)
    assert "shape" not in vars(model)


def test_inputs_that_are_changed_in_place_stay_the_users():
    class Shifted(nn.Module):
        def __init__(self, place):
            super().__init__()
            self.first, self.place = nn.Linear(6, 3), place

        def forward(self, x):
            return self.first(x.sub_(0.5).mul_(2) if self.place else (x - 0.5) * 2)

    (inputs, targets), meta_batch = batch(0), batch(1)
    before = inputs.clone()
    found = []
    for place in (True, False):
        model = seeded(lambda place=place: Shifted(place)).double()
        loss = seeded(MLPLoss).double()
        learner = metaloss.Learner(model, loss, task_loss=F.cross_entropy, inner=SGD(lr=0.5))
        learner.step((inputs, targets), meta_batch)
        found.append((model.first.weight.detach(), next(loss.parameters()).detach()))
    assert torch.equal(inputs, before)
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_a_block_under_two_names_draws_twice_and_keeps_its_own_weights():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            block = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.3), nn.Dropout(0.2))
            self.one, self.two, self.head = block, block, nn.Linear(6, 3)

        def forward(self, x):
            return self.head(self.two(self.one(x)))

    module = seeded(Twice).double()
    model = FunctionalModel(module, live=True)
    params, buffers = model.state()
    assert list(params) == ["one.0.weight", "one.0.bias", "head.weight", "head.bias"]
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    inputs, _ = batch(0)
    outputs, _ = model(leaves, buffers, inputs, key=torch.tensor(5))
    again, _ = model(leaves, buffers, inputs, key=torch.tensor(5))
    assert torch.equal(outputs, again)
    slopes = torch.autograd.grad(outputs.square().sum(), leaves.values())
    assert all(slope.abs().max() > 0 for slope in slopes)
    assert isinstance(module.one[0].weight, nn.Parameter)
    assert torch.equal(module.one[0].weight, params["one.0.weight"])


def test_parameters_of_complex_numbers_move_by_both_their_parts():
    class Fourier(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(4, 4, dtype=torch.cdouble) * 0.3)

        def forward(self, x):
            return torch.fft.irfft(torch.fft.rfft(x) @ self.w, n=6)

    draw = torch.Generator().manual_seed(0)
    pairs = [tuple(torch.randn(5, 6, generator=draw).double() for _ in "ab") for _ in range(3)]
    model, plain = seeded(Fourier), seeded(Fourier)
    loss = Scaled(link="identity").double()
    for kind, optimizer in (
        (metaloss.inner.SGD(lr=0.1, momentum=0.9), lambda p: torch.optim.SGD(p, 0.1, 0.9)),
        (metaloss.inner.Adam(lr=0.01), lambda p: torch.optim.Adam(p, 0.01)),
    ):
        learner = metaloss.Learner(model, loss, task_loss=F.mse_loss, inner=kind)
        torch_optimizer = optimizer(plain.parameters())
        for pair in pairs:
            learner.step(pair)
            torch_optimizer.zero_grad()
            F.mse_loss(plain(pair[0]), pair[1]).backward()
            torch_optimizer.step()
        torch.testing.assert_close(model.w, plain.w, rtol=1e-9, atol=1e-12)

    def task_loss_at(phi):
        net = seeded(Fourier)
        slope = torch.autograd.grad(phi * F.mse_loss(net(pairs[0][0]), pairs[0][1]), net.w)[0]
        with torch.no_grad():
            net.w.sub_(0.1 * slope)
            return float(F.mse_loss(net(pairs[1][0]), pairs[1][1]))

    true = (task_loss_at(1 + 1e-5) - task_loss_at(1 - 1e-5)) / 2e-5
    for engine in ("mixed", "torchopt", "higher", "finite_difference"):
        got = metaloss.meta_gradient(
            seeded(Fourier),
            loss,
            [pairs[0]],
            pairs[1],
            inner=SGD(lr=0.1),
            task_loss=F.mse_loss,
            engine=engine,
        )
        assert abs(true) > 1e-4
        assert float(got["scale"]) == pytest.approx(true, rel=1e-5)


def test_a_frozen_teacher_that_the_pass_moves_moves_once():
    class Taught(nn.Module):
        def __init__(self):
            super().__init__()
            self.own, self.teacher = nn.Linear(6, 3), nn.Linear(6, 3)
            self.teacher.requires_grad_(False)

        def forward(self, x):
            if self.training:
                with torch.no_grad():
                    for p, q in zip(self.own.parameters(), self.teacher.parameters(), strict=True):
                        q.mul_(0.9).add_(p, alpha=0.1)
            return self.own(x)

    model, plain = seeded(Taught).double(), seeded(Taught).double()
    learner = metaloss.Learner(
        model, Scaled().double(), task_loss=F.cross_entropy, inner=SGD(lr=0.5)
    )
    optimizer = torch.optim.SGD(plain.own.parameters(), lr=0.5)
    for step in range(3):
        inputs, targets = batch(step)
        learner.step((inputs, targets))
        optimizer.zero_grad()
        F.cross_entropy(plain(inputs), targets).backward()
        optimizer.step()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value)
    meta = metaloss.Learner(seeded(Taught).double(), MLPLoss().double(), task_loss=F.cross_entropy)
    begun = meta.model.teacher.weight.clone()
    own = meta.model.own.weight.clone()
    meta.step(batch(0), batch(1))
    torch.testing.assert_close(meta.model.teacher.weight, 0.9 * begun + 0.1 * own)


def test_features_that_are_only_left_there_are_allowed():
    def left(model, h):
        model.features = {"h": h, "two": (h, h * 2)}
        model.kept = h
        return h

    model = seeded(lambda: Layer(left)).double()
    with torch.no_grad():
        model(batch(0, rows=20)[0])
    learner = metaloss.Learner(model, MLPLoss().double(), task_loss=F.cross_entropy)
    assert bool(learner.step(batch(0), batch(1)).taken)
    assert bool(learner.step(batch(2, rows=9), batch(3)).taken)
