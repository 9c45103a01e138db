"""The contract of a loss: its derivatives, which a meta-gradient needs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import functional_call, grad, jacrev, vmap

from metaloss.inner.forward_mode import jvp
from metaloss.losses.base import LearnedLoss
from metaloss.testing.base import Checks, draws, require, require_close
from metaloss.types import Link, Tensors


class LossDerivativeChecks(Checks):
    """Checks of the derivatives of a loss; part of ``LossChecks``."""

    def rows(
        self, shape: tuple[int, ...], *, seed: int = 0, dtype: torch.dtype = torch.float64
    ) -> tuple[Tensor, Tensor]:
        """Return raw outputs (B, C, *) and targets that fit the loss's link."""
        link, draw = self.made().link, draws(seed)
        outputs = 2 * torch.randn(shape, generator=draw, dtype=torch.float64)
        if link is Link.softmax:
            return outputs.to(dtype), torch.randint(
                shape[1], (shape[0], *shape[2:]), generator=draw
            )
        if link is Link.sigmoid:
            target = torch.randint(2, shape, generator=draw)
        else:
            target = torch.randn(shape, generator=draw, dtype=torch.float64)
        return outputs.to(dtype), target.to(dtype)

    def test_first_derivatives_equal_differences(self) -> None:
        """First derivatives in raw outputs and φ equal finite differences, in float64."""
        function, points = self._function()
        (slope,) = torch.autograd.grad(function(*points), points[:1])
        require(
            slope.abs().max() > 0, "the loss has no gradient in the raw outputs: it trains nothing"
        )
        torch.autograd.gradcheck(function, points, fast_mode=True)

    def test_second_derivatives_equal_differences(self) -> None:
        """Second derivatives in raw outputs and φ equal finite differences, in float64."""
        function, points = self._function()
        # The square of a piecewise linear loss has second derivatives as well.
        torch.autograd.gradgradcheck(lambda *at: function(*at) ** 2, points, fast_mode=True)

    def test_forward_mode_equals_reverse_mode(self) -> None:
        """Forward over reverse mode equals reverse over reverse mode."""
        loss, (outputs, target) = self.made().double(), self.rows((4, 3))
        phi = _phi(loss)
        push = torch.randn(outputs.shape, generator=draws(3), dtype=outputs.dtype)

        def slope(z: Tensor, phi: Tensors) -> Tensor:
            return grad(lambda at: functional_call(loss, phi, (at, target)))(z)

        _, forward = jvp(lambda z: _slopes(loss, phi, z, target), (outputs,), (push,))
        reverse = grad(lambda z, phi: (slope(z, phi) * push).sum(), argnums=(0, 1))(outputs, phi)
        require_close(forward, reverse, "forward over reverse against reverse over reverse")

    def test_vmap_over_batches_equals_a_loop(self) -> None:
        """One call under ``vmap`` on stacked batches equals one call for each."""
        loss = self.made().double()
        pairs = [self.rows((4, 3), seed=seed) for seed in range(3)]
        outputs, targets = (torch.stack(column) for column in zip(*pairs, strict=True))
        expected = torch.stack([loss(*pair) for pair in pairs])
        require_close(vmap(loss)(outputs, targets), expected, "vmap against a loop")

    def test_vmap_over_a_population_equals_a_loop(self) -> None:
        """The gradient under ``vmap`` on stacked φ equals the gradient for each φ."""
        loss, (outputs, target) = self.made().double(), self.rows((4, 3))
        population = [_jittered(_phi(loss), seed) for seed in range(3)]
        if not population[0]:
            return
        stacked = {key: torch.stack([phi[key] for phi in population]) for key in population[0]}
        found = vmap(lambda phi: _slopes(loss, phi, outputs, target)[0])(stacked)
        expected = [_slopes(loss, phi, outputs, target)[0] for phi in population]
        require_close(found, torch.stack(expected), "vmap against a loop")

    def test_every_parameter_has_an_effect(self) -> None:
        """Every number in φ has an effect on the gradient in the raw outputs."""
        loss, (outputs, target) = self.made().double(), self.rows((8, 4))
        phi = _phi(loss)
        if not phi:
            return
        reach = {name: torch.zeros_like(value) for name, value in phi.items()}
        for seed in range(4):
            # A unit may be inactive at one φ: look at φ itself, and at three points around it.
            at = _jittered(phi, seed) if seed else phi
            for name, jacobian in jacrev(_slopes_at(loss, outputs, target))(at).items():
                reach[name] = reach[name].maximum(jacobian.abs().amax(0))
        for name, most in reach.items():
            dead = int((most == 0).sum())
            require(
                dead == 0,
                f"{dead} of {most.numel()} numbers in {name!r} have no effect on the gradient in "
                "the raw outputs: they cannot be learned",
            )

    def _function(self) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
        loss, (outputs, target) = self.made().double(), self.rows((3, 3))
        phi = _phi(loss)

        def function(outputs: Tensor, *values: Tensor) -> Tensor:
            return functional_call(loss, dict(zip(phi, values, strict=True)), (outputs, target))

        return function, tuple(p.requires_grad_() for p in (outputs, *phi.values()))


def _phi(loss: LearnedLoss) -> Tensors:
    return {name: value.detach().clone() for name, value in loss.named_parameters()}


def _jittered(phi: Tensors, seed: int) -> Tensors:
    draw = draws(100 + seed)
    return {
        name: value + 0.1 * torch.randn(value.shape, generator=draw, dtype=value.dtype)
        for name, value in phi.items()
    }


def _slopes(
    loss: LearnedLoss, phi: Tensors, outputs: Tensor, target: Tensor
) -> tuple[Tensor, Tensors]:
    return grad(lambda z, at: functional_call(loss, at, (z, target)), argnums=(0, 1))(outputs, phi)


def _slopes_at(loss: LearnedLoss, outputs: Tensor, target: Tensor) -> Callable[[Tensors], Tensor]:
    return lambda phi: _slopes(loss, phi, outputs, target)[0].flatten()
