"""The engines against derivations that share no code with them."""

import copy
from dataclasses import replace

import higher
import pytest
import torch
import torchopt
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from metaloss.inner import SGD, FunctionalModel, InnerProblem
from metaloss.losses import MLPLoss, Scaled
from metaloss.types import Batch, InnerState, Window

WITHOUT_DROPOUT = ["linear", "mlp", "norm", "cnn", "tied", "partial", "attention"]


def directional(value_at, phi, direction, step=1e-5) -> float:
    """Return the central difference of ``value_at`` along a direction."""
    ends = [
        value_at({name: value + sign * step * direction[name] for name, value in phi.items()})
        for sign in (1, -1)
    ]
    return (ends[0] - ends[1]) / (2 * step)


def assert_slope(gradient, value_at, phi, seed) -> None:
    draw = torch.Generator().manual_seed(seed)
    direction = {
        n: torch.randn(v.shape, generator=draw, dtype=v.dtype) * gradient[n].norm()
        for n, v in phi.items()
    }
    length = torch.stack([d.norm() for d in direction.values()]).norm()
    direction = {name: value / length for name, value in direction.items()}
    claimed = float(sum((gradient[name] * direction[name]).sum() for name in phi))
    assert abs(claimed) > 1e-6, "the slope is zero: the comparison would show nothing"
    assert claimed == pytest.approx(directional(value_at, phi, direction), rel=1e-4, abs=1e-9)


def trained_plainly(asked, make_optimizer, phi) -> float:
    """An ordinary loop: an ordinary module, ``backward()``, ``torch.optim``."""
    module = copy.deepcopy(asked.module)
    optimizer = make_optimizer([p for p in module.parameters() if p.requires_grad])
    for batch in asked.window.batches:
        optimizer.zero_grad()
        loss = functional_call(asked.problem.loss, phi, (module(batch.inputs), batch.targets))
        loss.backward()
        optimizer.step()
    meta = asked.window.meta_batch
    return float(asked.problem.task_loss(module(meta.inputs), meta.targets).detach())


@pytest.mark.parametrize("unroll", [1, 3, 10])
def test_central_differences_of_an_ordinary_loop_with_every_optimizer(
    exact, optimizer_name, unroll, case, torch_optimizer
):
    if (optimizer_name, unroll) in (("adam_decay", 1), ("adamw", 1), ("rmsprop", 1)):
        unroll = 2  # the first step is ±lr whatever φ is, up to ε = 1e-8: no slope to be seen
    asked = case("norm", optimizer_name, unroll)

    def value_at(phi):
        return trained_plainly(asked, lambda params: torch_optimizer(optimizer_name, params), phi)

    assert_slope(asked.answer(exact).gradient, value_at, asked.phi, seed=unroll)


@pytest.mark.parametrize("model", WITHOUT_DROPOUT)
def test_central_differences_of_an_ordinary_loop_with_every_model(
    exact, model, case, torch_optimizer
):
    asked = case(model, "momentum", 3)

    def value_at(phi):
        return trained_plainly(asked, lambda params: torch_optimizer("momentum", params), phi)

    assert_slope(asked.answer(exact).gradient, value_at, asked.phi, seed=4)


@pytest.mark.parametrize("model", ["norm_dropout", "shared", "foreign"])
def test_central_differences_with_dropout(exact, model, case):
    """The masks of the unroll are replayed: the differences see one fixed function of φ."""
    asked = case(model, "momentum", 3)

    def value_at(phi):
        return float(asked._replace(phi=phi).answer(exact).losses.meta_task)

    assert_slope(asked.answer(exact).gradient, value_at, asked.phi, seed=5)


class ScaledSquares(nn.Module):
    """φ/2 · mean (z − t)²: with it everything can be written down."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

    def forward(self, outputs, targets):
        return self.scale * ((outputs - targets) ** 2).mean() / 2


@pytest.mark.parametrize("unroll", [1, 3, 10])
def test_closed_form_of_linear_regression(exact, unroll):
    """θ_{k+1} = θ_k − αφ(Aθ_k − b): dθ_{k+1}/dφ = (I − αφA) dθ_k/dφ − α(Aθ_k − b)."""
    draw = torch.Generator().manual_seed(0)
    x, y = (torch.randn(12, n, generator=draw, dtype=torch.float64) for n in (4, 1))
    x_meta, y_meta = (torch.randn(9, n, generator=draw, dtype=torch.float64) for n in (4, 1))
    module = nn.Linear(4, 1, bias=False, dtype=torch.float64)
    loss, inner = ScaledSquares(), SGD(lr=0.3, momentum=0.0)
    problem = InnerProblem(
        model=FunctionalModel(module),
        loss=loss,
        task_loss=nn.functional.mse_loss,
        optimizer=inner,
    )
    params, buffers = problem.model.state()
    phi = {"scale": loss.scale.detach()}
    keys = (torch.tensor(0),) * unroll
    window = Window((Batch(x, y),) * unroll, keys, Batch(x_meta, y_meta), torch.tensor(0))
    state = InnerState(params, buffers, inner.init(params))
    result = exact.meta_gradient(problem, phi, state, window)

    curvature, pull, rate = x.T @ x / 12, x.T @ y / 12, 0.3 * loss.scale.detach()
    theta = module.weight.detach().T
    moved = torch.zeros_like(theta)
    for _ in range(unroll):
        slope = curvature @ theta - pull
        moved = moved - rate * curvature @ moved - 0.3 * slope
        theta = theta - rate * slope
    by_hand = (2 * x_meta.T @ (x_meta @ theta - y_meta) / 9 * moved).sum()
    assert abs(by_hand) > 1e-3
    torch.testing.assert_close(result.gradient["scale"], by_hand, rtol=1e-12, atol=0)
    torch.testing.assert_close(result.state.params["weight"], theta.T, rtol=1e-12, atol=0)


def test_a_scaled_loss_moves_like_the_learning_rate(exact, case):
    """One plain SGD step under φ · cross-entropy: d/dφ = −α ⟨∇L_task(θ'), ∇L(θ)⟩ at φ = 1."""
    asked = case("mlp", "sgd", 1)
    problem = InnerProblem(
        model=asked.problem.model,
        loss=Scaled(),
        task_loss=asked.problem.task_loss,
        optimizer=asked.problem.optimizer,
    )
    one = {"scale": torch.ones((), dtype=torch.float64)}
    result = exact.meta_gradient(problem, one, asked.state, asked.window)
    meta = asked.window.meta_batch
    after, _ = problem.task_gradient(result.state, meta, asked.window.meta_key)
    before, _ = problem.task_gradient(asked.state, asked.window.batches[0], asked.window.keys[0])
    product = sum((after[name] * before[name]).sum() for name in after)
    assert abs(product) > 1e-3
    torch.testing.assert_close(result.gradient["scale"], -0.2 * product, rtol=1e-10, atol=0)


def native_torchopt(asked, options):
    """The unroll with torchopt's own SGD."""
    phi = {name: value.clone().requires_grad_() for name, value in asked.phi.items()}
    params = {name: value.clone().requires_grad_() for name, value in asked.state.params.items()}
    rule = torchopt.sgd(**options)
    state = rule.init(params)
    for x, t in asked.window.batches:
        outputs = functional_call(asked.module, params, (x,))
        loss = functional_call(asked.problem.loss, phi, (outputs, t))
        grads = torch.autograd.grad(loss, params.values(), create_graph=True)
        updates, state = rule.update(
            dict(zip(params, grads, strict=True)), state, params=params, inplace=False
        )
        params = torchopt.apply_updates(params, updates, inplace=False)
    outputs = functional_call(asked.module, params, (asked.window.meta_batch.inputs,))
    task = asked.problem.task_loss(outputs, asked.window.meta_batch.targets)
    return dict(zip(phi, torch.autograd.grad(task, phi.values()), strict=True))


def native_higher(asked, options):
    """The unroll with higher's own SGD, on the user's module itself."""
    phi = {name: value.clone().requires_grad_() for name, value in asked.phi.items()}
    module = copy.deepcopy(asked.module)
    plain = torch.optim.SGD(module.parameters(), **options)
    with higher.innerloop_ctx(module, plain) as (patched, stepper):
        for x, t in asked.window.batches:
            stepper.step(functional_call(asked.problem.loss, phi, (patched(x), t)))
        meta = asked.window.meta_batch
        task = asked.problem.task_loss(patched(meta.inputs), meta.targets)
        return dict(zip(phi, torch.autograd.grad(task, phi.values()), strict=True))


@pytest.mark.parametrize("native", [native_torchopt, native_higher])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "nesterov"])
@pytest.mark.parametrize("unroll", [1, 3, 10])
def test_the_libraries_own_sgd(exact, native, optimizer, unroll, case, distance, torch_optimizer):
    asked = case("mlp", optimizer, unroll)
    given = torch_optimizer(optimizer, [torch.zeros(1)]).defaults
    options = {name: given[name] for name in ("lr", "momentum", "nesterov", "weight_decay")}
    assert distance(asked.answer(exact).gradient, native(asked, options)) < 1e-9


def test_every_coefficient_of_the_loss_is_reached(exact, case):
    gradient = case("norm_dropout", "momentum", 3).answer(exact).gradient
    assert list(gradient) == [name for name, _ in MLPLoss().named_parameters()]
    assert all(value.norm() > 1e-8 for value in gradient.values())


# Class weights, against rows that are there several times.
COUNTS = torch.tensor([1, 3, 2])


def repeated(batch):
    times = COUNTS[batch.targets]
    return Batch(*(values.repeat_interleave(times, 0) for values in batch))


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_weights_are_repetitions_of_rows_in_every_engine(exact, optimizer, case, distance):
    asked = case("mlp", optimizer, 3)
    window = asked.window
    again = window._replace(
        batches=tuple(map(repeated, window.batches)), meta_batch=repeated(window.meta_batch)
    )
    expected = exact.meta_gradient(asked.problem, asked.phi, asked.state, again)
    weighted = replace(asked.problem, class_weights=COUNTS.double())
    found = exact.meta_gradient(weighted, asked.phi, asked.state, window)
    assert distance(found.gradient, expected.gradient) < 1e-9
    unweighted = exact.meta_gradient(asked.problem, asked.phi, asked.state, window)
    assert distance(unweighted.gradient, expected.gradient) > 1e-3, "the weights matter"
    torch.testing.assert_close(found.losses.inner, expected.losses.inner)
    torch.testing.assert_close(found.losses.meta_task, expected.losses.meta_task)


def test_the_task_loss_is_torch_s_weighted_cross_entropy(case):
    problem = replace(case("mlp", "sgd", 1).problem, class_weights=COUNTS.double())
    outputs, targets = torch.randn(9, 3, dtype=torch.float64), torch.tensor([0, 1, 2] * 3)
    targets[0] = -100
    expected = F.cross_entropy(outputs, targets, weight=COUNTS.double())
    torch.testing.assert_close(problem.task_loss_of(outputs, targets), expected)


def test_a_sample_of_rows_is_unbiased_under_class_weights(case):
    problem = replace(case("mlp", "sgd", 1).problem, class_weights=COUNTS.double())
    outputs, targets = torch.randn(4, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 1])
    halves = torch.combinations(torch.arange(4), 2)
    found = [problem.sample_task_loss(outputs[rows], targets, rows) for rows in halves]
    torch.testing.assert_close(torch.stack(found).mean(), problem.task_loss_of(outputs, targets))
