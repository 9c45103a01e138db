"""The pure inner optimizers against torch.optim, step by step."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metaloss.contracts import InnerOptimizer
from metaloss.inner import SGD, Adam, AdamW, RateSchedule, RMSprop

from .optimizer_pairs import draws

STEPS = 20
Make = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]


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
