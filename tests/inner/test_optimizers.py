"""The pure inner optimizers against torch.optim, step by step."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import vmap
from torch.utils import _pytree as pytree

from metaloss.contracts import InnerOptimizer
from metaloss.errors import MetalossError
from metaloss.inner import SGD, Adam, AdamW, RateSchedule, RMSprop

STEPS = 20
SHAPES = {"w": (3, 2), "b": (2,), "scalar": ()}
Make = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]


def draws(dtype: torch.dtype, number: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(number)
    values = {n: torch.randn(s, generator=draw, dtype=torch.float64) for n, s in SHAPES.items()}
    values["b"][0] = 0.0  # one entry whose gradient is always zero
    return {name: value.to(dtype) for name, value in values.items()}


def assert_same_walk(
    ours: InnerOptimizer,
    make: Make,
    *,
    dtype: torch.dtype = torch.float64,
    schedule: Callable | None = None,
) -> None:
    """Take the same gradients through both and compare θ after every step."""
    params = draws(dtype, 0)
    theirs = {name: torch.nn.Parameter(value.clone()) for name, value in params.items()}
    optimizer = make(list(theirs.values()))
    scheduler = schedule(optimizer) if schedule else None
    state = ours.init(params)
    tolerance = 1e-12 if dtype == torch.float64 else 2e-5
    for step in range(STEPS):
        grads = draws(dtype, 1 + step)
        params, state = ours.update(grads, state, params)
        for name, value in theirs.items():
            value.grad = grads[name].clone()
        optimizer.step()
        if scheduler:
            scheduler.step()
        for name, value in theirs.items():
            assert params[name].dtype == dtype
            torch.testing.assert_close(
                params[name], value.detach(), rtol=tolerance, atol=tolerance, msg=f"step {step}"
            )
    assert any((params[name] - draws(dtype, 0)[name]).norm() > 1e-4 for name in params)


PAIRS = {
    "sgd": (SGD(lr=0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
    "sgd_decay": (
        SGD(lr=0.1, weight_decay=0.05),
        lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.05),
    ),
    "momentum": (SGD(lr=0.1, momentum=0.9), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)),
    "dampening": (
        SGD(lr=0.1, momentum=0.8, dampening=0.3, weight_decay=0.05),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8, dampening=0.3, weight_decay=0.05),
    ),
    "nesterov": (
        SGD(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.05),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.05),
    ),
    "adam": (Adam(lr=0.01), lambda p: torch.optim.Adam(p, lr=0.01)),
    "adam_all": (
        Adam(lr=0.01, beta1=0.8, beta2=0.95, eps=1e-3, weight_decay=0.1),
        lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.1),
    ),
    "adamw": (AdamW(lr=0.01), lambda p: torch.optim.AdamW(p, lr=0.01)),
    "adamw_all": (
        AdamW(lr=0.01, beta1=0.7, beta2=0.9, eps=1e-4, weight_decay=0.2),
        lambda p: torch.optim.AdamW(p, lr=0.01, betas=(0.7, 0.9), eps=1e-4, weight_decay=0.2),
    ),
    "rmsprop": (RMSprop(lr=0.01), lambda p: torch.optim.RMSprop(p, lr=0.01)),
    "rmsprop_centered": (
        RMSprop(lr=0.01, centered=True),
        lambda p: torch.optim.RMSprop(p, lr=0.01, centered=True),
    ),
    "rmsprop_all": (
        RMSprop(lr=0.01, alpha=0.9, eps=1e-4, momentum=0.5, centered=True, weight_decay=0.1),
        lambda p: torch.optim.RMSprop(
            p, lr=0.01, alpha=0.9, eps=1e-4, momentum=0.5, centered=True, weight_decay=0.1
        ),
    ),
}


@pytest.fixture(params=PAIRS)
def pair(request):
    return PAIRS[request.param]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_equals_torch_step_by_step(pair, dtype):
    assert_same_walk(*pair, dtype=dtype)


SCHEDULES = {
    "step": (
        {"schedule": RateSchedule.step, "step_size": 6, "decay": 0.5},
        lambda o: torch.optim.lr_scheduler.StepLR(o, 6, gamma=0.5),
    ),
    "multistep": (
        {"schedule": RateSchedule.multistep, "milestones": [2, 9, 10], "decay": 0.3},
        lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [2, 9, 10], gamma=0.3),
    ),
    "cosine": (
        {"schedule": RateSchedule.cosine, "period": 19, "lr_min": 0.001},
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 19, eta_min=0.001),
    ),
    "cosine_past_its_period": (
        {"schedule": RateSchedule.cosine, "period": 6},
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 6),
    ),
    "linear_past_its_period": (
        {"schedule": RateSchedule.linear, "period": 9},
        lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.0, 9),
    ),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(
    ("cls", "options", "theirs"),
    [
        (SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}, torch.optim.SGD),
        (AdamW, {"lr": 0.02}, torch.optim.AdamW),
        (RMSprop, {"lr": 0.02}, torch.optim.RMSprop),
    ],
)
def test_schedules_equal_torch_step_by_step(cls, options, theirs, name, dtype):
    ours, schedule = SCHEDULES[name]
    assert_same_walk(
        cls(**options, **ours), lambda p: theirs(p, **options), dtype=dtype, schedule=schedule
    )


rates = st.floats(1e-3, 0.5)
decays = st.sampled_from([0.0, 0.01, 0.3])
betas = st.floats(0.0, 0.99)
few = settings(max_examples=25, deadline=None, derandomize=True, database=None)


@few
@given(rates, st.floats(0.0, 0.99), st.floats(0.0, 1.0), st.booleans(), decays)
def test_any_sgd_equals_torch(lr, momentum, dampening, nesterov, weight_decay):
    if nesterov and momentum == 0:
        momentum = 0.5
    options = {
        "lr": lr,
        "momentum": momentum,
        "dampening": 0.0 if nesterov else dampening,
        "nesterov": nesterov,
        "weight_decay": weight_decay,
    }
    assert_same_walk(SGD(**options), lambda p: torch.optim.SGD(p, **options))


@few
@given(rates, betas, betas, st.sampled_from([1e-8, 1e-3]), decays, st.booleans())
def test_any_adam_equals_torch(lr, beta1, beta2, eps, weight_decay, decoupled):
    ours, theirs = (AdamW, torch.optim.AdamW) if decoupled else (Adam, torch.optim.Adam)
    assert_same_walk(
        ours(lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay),
        lambda p: theirs(p, lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay),
    )


@few
@given(rates, betas, st.sampled_from([1e-8, 1e-3]), st.floats(0.0, 0.95), decays)
def test_any_rmsprop_equals_torch(lr, alpha, eps, momentum, weight_decay):
    options = {
        "lr": lr,
        "alpha": alpha,
        "eps": eps,
        "momentum": momentum,
        "weight_decay": weight_decay,
    }
    assert_same_walk(RMSprop(**options), lambda p: torch.optim.RMSprop(p, **options))


def test_an_update_is_pure(pair):
    optimizer, _ = pair
    params, grads = draws(torch.float64, 0), draws(torch.float64, 1)
    _, state = optimizer.update(grads, optimizer.init(params), params)
    given_values = pytree.tree_leaves((grads, state, params))
    before = [value.clone() for value in given_values]
    first, second = (pytree.tree_leaves(optimizer.update(grads, state, params)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(given_values, before, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_state_keeps_its_shape(pair):
    """A state saved as a flat list is filled back into a fresh one: the trees must be the same."""
    optimizer, _ = pair
    params = draws(torch.float32, 0)
    state = optimizer.init(params)
    _, after = optimizer.update(draws(torch.float32, 1), state, params)
    (old, old_tree), (new, new_tree) = pytree.tree_flatten(state), pytree.tree_flatten(after)
    assert old_tree == new_tree
    assert [(a.shape, a.dtype) for a in old] == [(b.shape, b.dtype) for b in new]
    assert int(after["step"]) == 1


def test_second_derivatives_are_finite_where_every_gradient_was_zero(pair):
    """What an unroll differentiates: √v at zero must not give 0 · ∞."""
    optimizer, _ = pair
    params = {"w": torch.ones(3, dtype=torch.float64, requires_grad=True)}
    grads = {"w": torch.zeros(3, dtype=torch.float64, requires_grad=True)}
    new, state = params, optimizer.init(params)
    for _ in range(2):
        new, state = optimizer.update(grads, state, new)
    first = torch.autograd.grad(
        new["w"].sum(), [params["w"], grads["w"]], create_graph=True, allow_unused=True
    )
    assert all(torch.isfinite(value).all() for value in first)
    if first[1].requires_grad:
        (second,) = torch.autograd.grad(first[1].sum(), grads["w"], allow_unused=True)
        assert second is None or torch.isfinite(second).all()


def test_updates_are_differentiated_truly(pair):
    """Against central differences, two steps long, away from zero."""
    optimizer, _ = pair
    weight = torch.tensor([0.5, -1.0], dtype=torch.float64)

    def after(params, grads):
        new, state = optimizer.update({"w": grads}, optimizer.init({"w": params}), {"w": params})
        return optimizer.update({"w": grads * new["w"]}, state, new)[0]["w"]

    slope = torch.tensor([0.7, 2.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(after, (weight.requires_grad_(), slope), eps=1e-7, atol=1e-5)


def test_a_population_is_updated_at_once(pair):
    optimizer, _ = pair
    one, many = draws(torch.float64, 0), 3
    grads = [draws(torch.float64, 1 + k) for k in range(many)]
    stacked = {name: torch.stack([g[name] for g in grads]) for name in one}
    state = optimizer.init(one)
    together = vmap(lambda g: optimizer.update(g, state, one)[0])(stacked)
    for k in range(many):
        alone, _ = optimizer.update(grads[k], state, one)
        for name in one:
            torch.testing.assert_close(together[name][k], alone[name], rtol=1e-14, atol=0)


def test_a_nan_is_not_hidden():
    """A broken gradient must reach the guard, also through the root that is safe at zero."""
    for optimizer, _ in PAIRS.values():
        params = {"w": torch.ones(2)}
        new, _ = optimizer.update(
            {"w": torch.tensor([float("nan"), 1.0])}, optimizer.init(params), params
        )
        assert torch.isnan(new["w"][0])
        assert torch.isfinite(new["w"][1])


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (SGD, {"lr": 0.0}, r"inner.lr=0.0: expected a positive number"),
        (SGD, {"lr": float("nan")}, r"inner.lr=nan: expected a positive number"),
        (SGD, {"momentum": -0.1}, r"inner.momentum=-0.1: expected a number ≥ 0"),
        (SGD, {"nesterov": True, "momentum": 0.0}, r"inner.nesterov=true with momentum=0.0"),
        (
            SGD,
            {"nesterov": True, "momentum": 0.9, "dampening": 0.1},
            r"inner.nesterov=true with momentum=0.9 and dampening=0.1: expected a positive",
        ),
        (SGD, {"weight_decay": -1.0}, r"inner.weight_decay=-1.0: expected a number ≥ 0"),
        (SGD, {"step_size": 0}, r"inner.step_size=0: expected a positive number"),
        (SGD, {"period": -3}, r"inner.period=-3: expected a positive number"),
        (SGD, {"milestones": [3, 0]}, r"inner.milestones=\[3, 0\]: expected steps ≥ 1"),
        (Adam, {"lr": -1.0}, r"inner.lr=-1.0: expected a positive number"),
        (Adam, {"beta1": 1.0}, r"inner.beta1=1.0: expected a number in \[0, 1\)"),
        (Adam, {"beta2": -0.1}, r"inner.beta2=-0.1: expected a number in \[0, 1\)"),
        (Adam, {"eps": 0.0}, r"inner.eps=0.0: expected a positive number"),
        (AdamW, {"weight_decay": -0.1}, r"inner.weight_decay=-0.1: expected a number ≥ 0"),
        (RMSprop, {"alpha": 1.5}, r"inner.alpha=1.5: expected a number in \[0, 1\)"),
        (RMSprop, {"eps": -1.0}, r"inner.eps=-1.0: expected a positive number"),
        (RMSprop, {"momentum": -1.0}, r"inner.momentum=-1.0: expected a number ≥ 0"),
    ],
)
def test_bad_options_are_refused(cls, options, message):
    with pytest.raises(MetalossError, match=message):
        cls(**options)


def test_options_are_frozen_and_by_keyword():
    with pytest.raises(TypeError):
        SGD(0.1)
    with pytest.raises(AttributeError):
        SGD().lr = 1.0
