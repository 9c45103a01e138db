"""φ moves along its meta-gradient as under torch.optim, without touching what it was given."""

import math

import pytest
import torch
from torch.utils import _pytree as pytree

from metaloss.errors import MetalossError
from metaloss.inner.optimizers.rates import RateSchedule
from metaloss.meta_optimizers.engine import Rule
from metaloss.meta_optimizers.mixed import Mixed

STEPS = 12


def made_up(seed: int) -> dict[str, torch.Tensor]:
    """Tensors whose names are not in alphabetical order."""
    draw = torch.Generator().manual_seed(seed)
    return {
        "w.2": torch.randn(3, 2, generator=draw, dtype=torch.float64),
        "a": torch.randn((), generator=draw, dtype=torch.float64),
        "w.10": torch.randn(4, generator=draw, dtype=torch.float64),
    }


def walk(engine: Mixed, *, phase: str = "train", total: int = STEPS, size: float = 1.0):
    """Return φ after each of the steps along made-up gradients."""
    phi, path = made_up(0), []
    state = engine.rule_init(phi)
    for number in range(STEPS):
        gradient = {name: size * value for name, value in made_up(1 + number).items()}
        phi, state = engine.rule_step(phi, gradient, state, phase=phase, total=total)
        path.append(phi)
    return path


def torch_walk(make, *, size: float = 1.0, clip: float = 0.0, schedule=None):
    params = {name: torch.nn.Parameter(value) for name, value in made_up(0).items()}
    optimizer = make(params.values())
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule) if schedule else None
    path = []
    for number in range(STEPS):
        for name, value in made_up(1 + number).items():
            params[name].grad = size * value
        if clip:
            torch.nn.utils.clip_grad_norm_(params.values(), clip)
        optimizer.step()
        if rates:
            rates.step()
        path.append({name: value.detach().clone() for name, value in params.items()})
    return path


def assert_same_path(got, expected, tolerance: float = 1e-9) -> None:
    start = made_up(0)
    for step, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert list(a) == list(b)
        for name in a:
            moved = (b[name] - start[name]).norm()
            assert moved > 1e-6
            assert (a[name] - b[name]).norm() < tolerance * moved, (step, name)


def test_adam_equals_torch():
    expected = torch_walk(lambda params: torch.optim.Adam(params, lr=0.01))
    assert_same_path(walk(Mixed(lr=0.01)), expected)


def test_sgd_equals_torch():
    expected = torch_walk(lambda params: torch.optim.SGD(params, lr=0.01))
    assert_same_path(walk(Mixed(lr=0.01, rule=Rule.sgd)), expected)


def test_rmsprop_equals_torch():
    expected = torch_walk(lambda params: torch.optim.RMSprop(params, lr=0.01))
    assert_same_path(walk(Mixed(lr=0.01, rule=Rule.rmsprop)), expected)


@pytest.mark.parametrize("rule", Rule)
def test_the_phase_chooses_the_rate(rule):
    assert_same_path(
        walk(Mixed(lr=9.0, offline_lr=0.01, rule=rule), phase="offline"),
        walk(Mixed(lr=0.01, offline_lr=9.0, rule=rule), phase="train"),
    )


@pytest.mark.parametrize("size", [0.01, 100.0])
def test_clipping_equals_torch(size):
    """Below the limit nothing happens; above it the whole gradient is scaled, not its entries."""
    expected = torch_walk(lambda params: torch.optim.SGD(params, lr=0.01), size=size, clip=1.0)
    got = walk(Mixed(lr=0.01, rule=Rule.sgd, clip=1.0), size=size)
    assert_same_path(got, expected, tolerance=1e-6)


def test_clipping_bounds_the_norm_of_the_move():
    phi, gradient = made_up(0), {name: 50 * value for name, value in made_up(1).items()}
    engine = Mixed(lr=1.0, rule=Rule.sgd, clip=0.25)
    new, _ = engine.rule_step(phi, gradient, engine.rule_init(phi), phase="train", total=1)
    moved = torch.stack([(new[name] - phi[name]).norm() for name in phi]).norm()
    assert moved.item() == pytest.approx(0.25, rel=1e-6)


@pytest.mark.parametrize(
    ("rate", "factor"),
    [
        (RateSchedule.constant, lambda step: 1.0),
        (RateSchedule.linear, lambda step: max(0.0, 1 - step / 8)),
        (RateSchedule.cosine, lambda step: (1 + math.cos(math.pi * min(step / 8, 1.0))) / 2),
    ],
)
def test_rate_schedules(rate, factor):
    """Over a phase of 8 meta-steps; past its end the rate stays at zero."""
    expected = torch_walk(lambda params: torch.optim.SGD(params, lr=0.01), schedule=factor)
    got = walk(Mixed(lr=0.01, rule=Rule.sgd, lr_schedule=rate), total=8)
    assert_same_path(got, expected)
    if rate is not RateSchedule.constant:
        assert all(torch.equal(got[-1][name], got[8][name]) for name in got[-1])


def test_rates_that_need_more_options_are_refused():
    with pytest.raises(MetalossError, match="lr_schedule=step: expected constant, cosine or lin"):
        Mixed(lr_schedule=RateSchedule.step)


def test_the_guards_factor_shrinks_the_move():
    phi, engine = made_up(0), Mixed(lr=0.01)
    whole = engine.rule_init(phi)
    tenth = whole._replace(shrink=torch.tensor(0.1, dtype=torch.float64))
    moves = []
    for state in (whole, tenth):
        new, after = engine.rule_step(phi, made_up(1), state, phase="train", total=0)
        moves.append({name: new[name] - phi[name] for name in phi})
        assert torch.equal(after.shrink, state.shrink)
    for name in phi:
        torch.testing.assert_close(moves[1][name], 0.1 * moves[0][name], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("rule", Rule)
@pytest.mark.parametrize("clip", [0.0, 0.1])
def test_a_step_is_pure(rule, clip):
    engine = Mixed(rule=rule, clip=clip)
    phi, gradient = made_up(0), made_up(1)
    _, state = engine.rule_step(phi, gradient, engine.rule_init(phi), phase="train", total=9)
    given = pytree.tree_leaves((phi, gradient, state))
    before = [value.clone() for value in given]
    results = [engine.rule_step(phi, gradient, state, phase="train", total=9) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))
    first, second = (pytree.tree_leaves(result) for result in results)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not any(value.requires_grad for value in first)


@pytest.mark.parametrize("rule", Rule)
def test_the_state_keeps_its_shape(rule):
    """Saved as a flat list, filled back into a fresh one: the trees must be the same."""
    engine, phi = Mixed(rule=rule, clip=1.0), made_up(0)
    state = engine.rule_init(phi)
    _, after = engine.rule_step(phi, made_up(1), state, phase="train", total=1)
    (old, old_tree), (new, new_tree) = pytree.tree_flatten(state), pytree.tree_flatten(after)
    assert old_tree == new_tree
    assert [(a.shape, a.dtype) for a in old] == [(b.shape, b.dtype) for b in new]


def test_a_gradient_of_zeros_moves_nothing():
    phi = made_up(0)
    for rule in Rule:
        engine = Mixed(rule=rule, clip=1.0)
        zeros = {name: torch.zeros_like(value) for name, value in phi.items()}
        new, _ = engine.rule_step(phi, zeros, engine.rule_init(phi), phase="train", total=1)
        assert all(torch.equal(new[name], phi[name]) for name in phi)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0.0}, r"meta_optimizer.lr=0.0: expected a positive number"),
        ({"lr": float("nan")}, r"meta_optimizer.lr=nan: expected a positive number"),
        ({"offline_lr": -1.0}, r"meta_optimizer.offline_lr=-1.0: expected a positive number"),
        ({"clip": -0.5}, r"meta_optimizer.clip=-0.5: expected a number ≥ 0"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(MetalossError, match=message):
        Mixed(**options)


@pytest.mark.parametrize("rule", Rule)
def test_single_precision_stays_single(rule):
    """Also where φ is one number, which a factor in double precision would promote."""
    phi = {name: value.float() for name, value in made_up(0).items()}
    gradient = {name: value.float() for name, value in made_up(1).items()}
    engine = Mixed(rule=rule, clip=1.0)
    new, state = engine.rule_step(phi, gradient, engine.rule_init(phi), phase="train", total=1)
    assert all(value.dtype == torch.float32 for value in new.values())
    assert all(value.dtype != torch.float64 for value in pytree.tree_leaves(state.torchopt))
