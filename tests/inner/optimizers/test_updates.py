"""Updates as functions: pure, differentiable, finite, and with options that are checked."""

import pytest
import torch
from torch.func import vmap
from torch.utils import _pytree as pytree

from metaloss.errors import MetalossError
from metaloss.inner import SGD, Adam, AdamW, RMSprop

from .optimizer_pairs import PAIRS, draws


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
        (SGD, {"lr_min": -0.1}, r"inner.lr_min=-0.1: expected a number ≥ 0"),
        (SGD, {"decay": -0.1}, r"inner.decay=-0.1: expected a number ≥ 0"),
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
