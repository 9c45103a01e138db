"""The contract of an inner optimizer: a pure, differentiable update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils import _pytree as pytree

from metaloss.contracts import InnerOptimizer
from metaloss.inner.forward_mode import jvp
from metaloss.testing.base import (
    Checks,
    draws,
    nothing_changes,
    require,
    require_close,
    require_finite,
    tensors_in,
)
from metaloss.types import Tensors


class InnerOptimizerChecks(Checks):
    """Checks of an inner optimizer; ``make`` returns it.

    Example:
        >>> from metaloss.inner import SGD
        >>> class TestSGD(InnerOptimizerChecks):
        ...     def make(self):
        ...         return SGD(lr=0.1)
        >>> TestSGD().test_the_update_goes_downhill()
    """

    def test_the_update_changes_no_argument(self) -> None:
        """``update`` and ``init`` change no argument; a second call gives the same result."""
        optimizer, params, grads, state = self._underway()
        with nothing_changes("update()", grads, state, params):
            first = optimizer.update(grads, state, params)
            second = optimizer.update(grads, state, params)
        require_close(first, second, "a second call", rtol=0, atol=0)
        with nothing_changes("init()", params):
            optimizer.init(params)

    def test_the_state_keeps_its_form(self) -> None:
        """The state's structure, shapes and types are the same at every step; leaves are tensors.

        Checkpoints and compiled programs need this.
        """
        optimizer = self.made()
        for dtype in (torch.float32, torch.float64):
            params, grads = _values(dtype)
            state = optimizer.init(params)
            leaves, form = pytree.tree_flatten(state)
            require(
                all(isinstance(leaf, Tensor) for leaf in leaves),
                "a leaf of the state is not a tensor",
            )
            kinds = [(leaf.shape, leaf.dtype) for leaf in leaves]
            for step in range(3):
                new, state = optimizer.update(grads, state, params)
                found, new_form = pytree.tree_flatten(state)
                require(new_form == form, f"the state's structure changes at step {step}")
                same = kinds == [(leaf.shape, leaf.dtype) for leaf in found]
                require(same, f"shapes or types in the state change at step {step}")
                for name, value in params.items():
                    got = new[name]
                    require(got.shape == value.shape, f"{name!r} comes back as {got.shape}")
                    require(got.dtype == dtype, f"{dtype} parameters come back in {got.dtype}")
                params = new

    def test_the_update_goes_downhill(self) -> None:
        """Twenty steps on the sum of squares make it smaller."""
        optimizer = self.made()
        params, _ = _values(torch.float64)
        state, first = optimizer.init(params), _square(params)
        for _ in range(20):
            params, state = optimizer.update({k: 2 * p for k, p in params.items()}, state, params)
        require(_square(params) < first, f"Σp² goes from {first:.4g} to {_square(params):.4g}")

    def test_derivatives_equal_differences(self) -> None:
        """Derivatives in gradients, parameters and state equal finite differences, in float64."""
        function, points = self._function()
        torch.autograd.gradcheck(function, points, fast_mode=True)

    def test_forward_mode_equals_reverse_mode(self) -> None:
        """Forward-mode and reverse-mode derivatives have the same inner products."""
        function, points = self._function()
        push = tuple(torch.randn(p.shape, generator=draws(5), dtype=p.dtype) for p in points)
        values, moved = jvp(function, tuple(p.detach() for p in points), push)
        pull = tuple(torch.randn(v.shape, generator=draws(6), dtype=v.dtype) for v in values)
        back = torch.autograd.grad(function(*points), points, pull, materialize_grads=True)
        forward = sum((a * b).sum() for a, b in zip(moved, pull, strict=True))
        reverse = sum((a * b).sum() for a, b in zip(push, back, strict=True))
        require_close(forward, reverse, "forward against reverse mode")

    def test_a_gradient_that_is_always_zero_is_harmless(self) -> None:
        """Gradients that are always zero cause no NaN, neither in values nor in derivatives."""
        optimizer = self.made()
        params, grads = _values(torch.float64)
        zero = {name: torch.zeros_like(g) for name, g in grads.items()}
        state = optimizer.init(params)
        for _ in range(2):
            leaves = {name: g.clone().requires_grad_() for name, g in zero.items()}
            new, state = optimizer.update(leaves, state, params)
            slopes = torch.autograd.grad(sum(v.sum() for v in new.values()), [*leaves.values()])
            state = pytree.tree_map(torch.Tensor.detach, state)
            require_finite((new, state), "after zero gradients")
            require_finite(slopes, "the derivative at zero gradients")

    def test_vmap_equals_a_loop(self) -> None:
        """One call under ``vmap`` on stacked gradients equals one call for each."""
        optimizer, params, grads, state = self._underway()
        several = [{name: (k - 0.5) * g for name, g in grads.items()} for k in range(3)]
        stacked = {name: torch.stack([one[name] for one in several]) for name in grads}
        found = vmap(lambda g: optimizer.update(g, state, params)[0])(stacked)
        expected = [optimizer.update(one, state, params)[0] for one in several]
        for name, value in found.items():
            require_close(value, torch.stack([one[name] for one in expected]), "vmap")

    def _underway(self) -> tuple[InnerOptimizer, Tensors, Tensors, Any]:
        """Return an optimizer, parameters, gradients and the state after two steps."""
        optimizer: InnerOptimizer = self.made()
        params, grads = _values(torch.float64)
        state = optimizer.init(params)
        for scale in (0.5, 1.5):
            moved = {name: scale * g for name, g in grads.items()}
            params, state = optimizer.update(moved, state, params)
        return optimizer, params, grads, state

    def _function(self) -> tuple[Callable[..., tuple[Tensor, ...]], tuple[Tensor, ...]]:
        """Return the update as a function of all its floating-point tensors, and their values."""
        optimizer, params, grads, state = self._underway()
        leaves, form = pytree.tree_flatten((grads, state, params))
        moving = [i for i, leaf in enumerate(leaves) if leaf.is_floating_point()]

        def function(*values: Tensor) -> tuple[Tensor, ...]:
            given = list(leaves)
            for place, value in zip(moving, values, strict=True):
                given[place] = value
            result = tensors_in(optimizer.update(*pytree.tree_unflatten(given, form)))
            return tuple(value for value in result if value.is_floating_point())

        points = tuple(leaves[place].detach().clone().requires_grad_() for place in moving)
        return function, points


def _values(dtype: torch.dtype) -> tuple[Tensors, Tensors]:
    draw = draws(0)
    shapes = {"weight": (3, 2), "bias": (3,)}
    params, grads = (
        {name: torch.randn(shape, generator=draw).to(dtype) for name, shape in shapes.items()}
        for _ in range(2)
    )
    return params, grads


def _square(params: Tensors) -> float:
    return float(sum((p**2).sum() for p in params.values()))
