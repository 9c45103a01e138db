"""The contract of a loss: its derivatives, which a meta-gradient needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor
from torch.func import functional_call, grad, jacrev, vmap

from metaloss.inner.forward_mode import jvp
from metaloss.losses.base import LearnedLoss, phi_of
from metaloss.testing.base import Checks, draws, require, require_close
from metaloss.types import Link, Row, Tensors


class LossDerivativeChecks(Checks):
    """Checks of the derivatives of a loss; part of ``LossChecks``."""

    def rows(
        self, shape: tuple[int, ...], *, seed: int = 0, dtype: torch.dtype = torch.float64
    ) -> tuple[Tensor, Tensor]:
        """Return raw outputs (B, C, *) and targets that fit the loss's link.

        C is another one if the loss is made for one number of classes.
        """
        loss, draw = self.made(), draws(seed)
        link, shape = loss.link, (shape[0], loss.classes or shape[1], *shape[2:])
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

    def known(self, outputs: Tensor, seed: int = 0) -> dict[str, Row]:
        """Return what is known of the rows as an argument of the loss; none if it sees nothing."""
        if not self.made().sees:
            return {}
        (count, classes), draw = outputs.shape[:2], draws(50 + seed)
        average = 0.8 * torch.rand(count, classes, generator=draw).to(outputs).softmax(1)
        row = Row(
            memory=torch.rand(count, 2, generator=draw),
            average=average,
            visits=torch.randint(1, 9, (count,), generator=draw),
            progress=torch.rand(count, generator=draw),
            number=torch.arange(count),
            outputs=outputs.detach().clone(),
        )
        return {"row": row}

    def test_it_sees_what_it_says(self) -> None:
        """Each field of `Row` that the loss `sees` can change its gradient; no other field can."""
        loss, (outputs, target) = self.made().double(), self.rows((6, 4))
        known, phi = self.known(outputs), _jittered(phi_of(loss), 0)
        for name in known["row"]._fields if known else ():
            reach = 0.0
            for seed in range(4):
                noise = torch.randn(outputs.shape, generator=draws(seed)).to(outputs)
                other = self.known(outputs + noise, seed=1 + seed)["row"]
                changed = getattr(other, name)
                changed = changed + 17 * seed if name == "number" else changed
                row = known["row"]._replace(**{name: changed})
                first, second = (
                    _slopes(loss, phi, outputs, target, {"row": one})[0]
                    for one in (known["row"], row)
                )
                reach = max(reach, float((first - second).abs().max()))
            says = name in loss.sees
            require(
                (reach > 0) == says,
                f"{name!r} of a row {'has' if reach else 'has no'} effect on the gradient, but "
                f"{'is' if says else 'is not'} among the fields that the loss sees",
            )

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
        phi = phi_of(loss)
        push = torch.randn(outputs.shape, generator=draws(3), dtype=outputs.dtype)
        known = self.known(outputs)

        def along(z: Tensor, phi: Tensors) -> Tensor:
            return (_slopes(loss, phi, z, target, known)[0] * push).sum()

        _, forward = jvp(lambda z: _slopes(loss, phi, z, target, known), (outputs,), (push,))
        reverse = grad(along, argnums=(0, 1))(outputs, phi)
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
        population = [_jittered(phi_of(loss), seed) for seed in range(3)]
        if not population[0]:
            return
        stacked = {key: torch.stack([phi[key] for phi in population]) for key in population[0]}
        found = vmap(lambda phi: _slopes(loss, phi, outputs, target)[0])(stacked)
        expected = [_slopes(loss, phi, outputs, target)[0] for phi in population]
        require_close(found, torch.stack(expected), "vmap against a loop")

    def test_every_parameter_has_an_effect(self) -> None:
        """Every number in φ has an effect on the gradient in the raw outputs."""
        loss, (outputs, target) = self.made().double(), self.rows((8, 4))
        phi = phi_of(loss)
        if not phi:
            return
        reach = {name: torch.zeros_like(value) for name, value in phi.items()}
        for seed in range(4):
            # A unit may be inactive at one φ: look at φ itself, and at three points around it.
            at = _jittered(phi, seed) if seed else phi
            known = self.known(outputs, seed)
            slopes = jacrev(lambda phi, known=known: _slopes(loss, phi, outputs, target, known)[0])
            for name, jacobian in slopes(at).items():
                reach[name] = reach[name].maximum(jacobian.abs().amax((0, 1)))
        for name, most in reach.items():
            dead = int((most == 0).sum())
            require(
                dead == 0,
                f"{dead} of {most.numel()} numbers in {name!r} have no effect on the gradient in "
                "the raw outputs: they cannot be learned",
            )

    def _function(self) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
        loss, (outputs, target) = self.made().double(), self.rows((3, 3))
        phi, known = phi_of(loss), self.known(outputs)

        def function(outputs: Tensor, *values: Tensor) -> Tensor:
            at = dict(zip(phi, values, strict=True))
            return functional_call(loss, at, (outputs, target), known)

        return function, tuple(p.requires_grad_() for p in (outputs, *phi.values()))


def _jittered(phi: Tensors, seed: int) -> Tensors:
    draw = draws(100 + seed)
    return {
        name: value + 0.1 * torch.randn(value.shape, generator=draw, dtype=value.dtype)
        for name, value in phi.items()
    }


def _slopes(
    loss: LearnedLoss,
    phi: Tensors,
    outputs: Tensor,
    target: Tensor,
    known: Mapping[str, Row] = MappingProxyType({}),
) -> tuple[Tensor, Tensors]:
    def value(z: Tensor, at: Tensors) -> Tensor:
        return functional_call(loss, at, (z, target), dict(known))

    return grad(value, argnums=(0, 1))(outputs, phi)
