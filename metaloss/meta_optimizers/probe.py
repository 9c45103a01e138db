"""Tests once, before the first meta-step and on a few rows, which derivatives of a model are right.

θ is updated by reverse mode. An operation may have no other derivative; then PyTorch raises an
error. It may also have a wrong one, or none without an error: an operator in C++, a part under
``no_grad``, a straight-through estimator. So each method to compute J v and H v is compared with
reverse mode at random u and v:

    ⟨u, J v⟩ = ⟨Jᵀu, v⟩,    H v = (∇L(θ + εv) − ∇L(θ − εv)) / 2ε,

in the model's own precision, whose kernels a run uses, and in double precision if the model
supports it. If a part of the model is detached, so that its gradients are not derivatives of the
outputs, H v is compared with double backward instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metaloss.inner.dispatch import dispatch_kept
from metaloss.inner.gradients import gradient_of, norm, reached_by
from metaloss.inner.problem import InnerProblem, Tangents
from metaloss.inner.weighted import held
from metaloss.meta_optimizers.probe_rows import double, few, finite, moved, random_like, runs, said
from metaloss.meta_optimizers.products import hvp_and_mixed_vjp, outputs_along
from metaloss.types import InnerState, StoredStep, Tensors, Window

# The largest relative difference, and the step size of finite differences relative to the weights:
# in double precision (True) and in others. Kinks and rounding limit the precision.
_TOLERANCE, _STEP = {True: 1e-5, False: 5e-3}, {True: 1e-6, False: 1e-2}
_SECOND_STEP = {True: 1e-4, False: 1e-3}
# Without a detached part, differences of the outputs in double precision are at most 3e-9 off, in
# 231 kinds of models. A part that changes the outputs by more may bend them visibly.
_DETACHED = 1e-7
# Finite differences in single precision detect only large errors.
_ROUGH = 0.2


@dataclass(frozen=True)
class Probe:
    """A model, a loss and a few rows to test derivatives on.

    Attributes:
        problem: The functions of an inner step.
        phi: φ by name.
        step: A step on a few rows, at weights that no part of the model has itself.
        drawn: A random direction in θ.
        curves: Whether H v is needed too, because the unroll has several steps.
        only_wide: Whether to test only in double precision, if the model supports it.
    """

    problem: InnerProblem
    phi: Tensors
    step: StoredStep
    drawn: Tensors
    curves: bool
    only_wide: bool = False

    @classmethod
    def two(
        cls, problem: InnerProblem, phi: Tensors, state: InnerState, window: Window
    ) -> list[Probe]:
        """Return probes of a window's first step, near θ and farther away.

        An error that is hidden at one point may be visible at the other.
        """
        # A batch may have NaN, which the guard handles.
        batch = pytree.tree_map_only(Tensor, finite, window.batches[0])
        small, buffers, key = few(batch), state.buffers, window.keys[0]
        if runs(lambda: problem.predict(state.params, buffers, small, key)):
            batch = small
        away, drawn = (random_like(state.params, purpose) for purpose in ("probe/at", "probe/v"))
        curves = len(window.batches) > 1
        probes = []
        for distance in (0.01, 1.0):
            params = moved(state.params, away, distance)
            step = held(problem, StoredStep(state._replace(params=params), batch, key, {}))
            far = distance == 1.0
            probes.append(cls(problem, phi, step, drawn, curves, only_wide=far))
        return probes

    def fault(self, method: Tangents) -> str | None:
        """Return what is wrong with a method of differentiating the model; None if it is right.

        If the model has no gradient at these weights, the result is None.
        """
        if method is Tangents.differences and (half := self._half) is not None:
            # θ ± εv is rounded to θ, or to a few rounding steps from it.
            return f"weights in {str(half).removeprefix('torch.')} have too few digits for it"
        if not runs(lambda: self._pulled):
            return None
        wide = self._wide
        in_wide_alone = self.only_wide or method is Tangents.differences
        if wide is None or not in_wide_alone:
            found = self._fault(method, precise=False, with_rough=wide is None)
            if found is not None or wide is None:
                return found
        return wide._fault(method, precise=True, with_rough=False)

    def loss_fault(self) -> str | None:
        """Return what is wrong with the loss's mixed derivative in z and φ; None if it is right."""
        probe = self._wide or self
        problem, step = probe.problem, probe.step
        with torch.no_grad():
            outputs, _ = problem.predict(
                step.state.params, step.state.buffers, step.batch, step.key
            )
        weights = random_like({"z": outputs}, "probe/z")["z"]
        along = random_like(probe.phi, "probe/phi")

        def slope(phi: Tensors, *, create_graph: bool = False) -> Tensor:
            z = outputs.detach().requires_grad_()
            with torch.enable_grad():
                loss = problem.learned_loss(phi, z, step.batch.targets)
                (found,) = gradient_of(loss, [z], create_graph=create_graph)
                return (found * weights).sum()

        leaves = {name: value.detach().requires_grad_() for name, value in probe.phi.items()}
        values = gradient_of(slope(leaves, create_graph=True), list(leaves.values()))
        got = sum(
            float((value * along[name]).sum()) for name, value in zip(leaves, values, strict=True)
        )
        gaps = []
        precise = outputs.dtype is torch.float64
        # There may be a kink between the points of some of them.
        for size in (1e-4, 1e-5, 1e-6, 1e-7) if precise else (1e-3, 1e-4, 1e-5):
            ahead, behind = (float(slope(moved(probe.phi, along, sign * size))) for sign in (1, -1))
            true = (ahead - behind) / (2 * size)
            gaps.append(abs(got - true) / max(abs(true), abs(got), 1e-9))
        if min(gaps) > (1e-2 if precise else _ROUGH):
            return f"the loss's derivative in φ differs from finite differences by {min(gaps):.0%}"
        return None

    def _fault(self, method: Tangents, *, precise: bool, with_rough: bool) -> str | None:
        tolerance = _TOLERANCE[precise]
        if precise and method is Tangents.differences:
            # FiniteDifference is no more precise; torch's own CrossMapLRN2d is 1e-5 off.
            tolerance *= 10
        narrow = self.problem.model.narrow or self._half is not None
        if not precise and (method is Tangents.differences or narrow):
            tolerance = _ROUGH
        try:
            gap = self._jacobian_gap(method, precise)
            if not gap <= tolerance:
                return f"{_WORDS[method]} differ from reverse mode by {_percent(gap)}"
            if self.curves and method is not Tangents.differences:
                gap = self._curvature_gap(method, precise)
                compared = precise or with_rough
                if compared and not gap <= (tolerance * 100 if precise else _ROUGH):
                    return f"{_WORDS[method]} of second order are wrong by {_percent(gap)}"
        except Exception as error:  # PyTorch raises many types
            return f"no {_WORDS[method]}: {said(error)}"
        return None

    @dispatch_kept()
    def _jacobian_gap(self, method: Tangents, precise: bool) -> float:
        """Return |⟨u, J v⟩ − ⟨Jᵀu, v⟩|, relative to the lengths of the vectors."""
        problem, step, direction = self.problem, self.step, self._direction
        if method is Tangents.differences:
            change = self._difference(self._outputs, direction, _STEP[precise])
        else:
            _, change = outputs_along(replace(problem, tangents=method), step, direction)
        cotangent, pulled = self._pulled
        ahead = float((cotangent * change).sum())
        back = sum(float((value * direction[name]).sum()) for name, value in pulled.items())
        if not math.isfinite(back):
            return 0.0  # there is no reference
        scale = max(float(cotangent.norm() * change.norm()) / cotangent.numel() ** 0.5, abs(back))
        return abs(ahead - back) / scale if scale else 0.0

    @dispatch_kept()
    def _curvature_gap(self, method: Tangents, precise: bool) -> float:
        """Return the relative error of H v."""
        problem, step, direction = self.problem, self.step, self._direction

        def by(tangents: Tangents) -> Tensors:
            given = replace(problem, tangents=tangents)
            return hvp_and_mixed_vjp(given, self.phi, step, direction)[0]

        noise = float(norm(self._slopes(step.state.params).values())) * 1e-8
        curved = by(method)
        if not self._is_derivative(precise):
            return _gap(curved, by(Tangents.reverse), noise)
        # The smaller step has rounding errors if H v is small, the larger one errors at kinks.
        one, two = (
            self._difference(self._slopes, direction, steps[precise])
            for steps in (_STEP, _SECOND_STEP)
        )
        gap = min(_gap(curved, one, noise), _gap(curved, two, noise))
        # Both exact methods may miss a curvature. If they agree, they are accepted only where the
        # two differences do not agree with each other.
        other = Tangents.reverse if method is not Tangents.reverse else Tangents.forward
        if gap > _TOLERANCE[True] and _gap(one, two, noise) > gap / 10:
            with suppress(Exception):  # PyTorch refuses in many ways
                gap = min(gap, _gap(curved, by(other), noise))
        return gap

    @property
    def _half(self) -> torch.dtype | None:
        """The type of weights in half precision, None if there are none."""
        types = {p.dtype for p in self.step.state.params.values()}
        return next((one for one in (torch.bfloat16, torch.float16) if one in types), None)

    @cached_property
    def _pulled(self) -> tuple[Tensor, Tensors]:
        """A cotangent u of the outputs, and Jᵀu for the parameters that the outputs depend on."""
        leaves = {name: p.detach().requires_grad_() for name, p in self.step.state.params.items()}
        with torch.enable_grad():
            outputs = self._outputs(leaves)
            cotangent = random_like({"u": outputs.detach()}, "probe/u")["u"]
            values = reached_by((outputs * cotangent).sum(), list(leaves.values()))
        pairs = zip(leaves, values, strict=True)
        return cotangent, {name: value for name, value in pairs if value is not None}

    @cached_property
    def _direction(self) -> Tensors:
        """A direction v in θ, along the elements that have a gradient.

        The directions of a run are gradients too. So an element without one is never moved, such as
        those of the padding row of ``nn.Embedding(padding_idx=...)``, on which the outputs depend.
        """
        _, pulled = self._pulled
        return {
            name: v * (pulled[name] != 0) if name in pulled else torch.zeros_like(v)
            for name, v in self.drawn.items()
        }

    def _is_derivative(self, precise: bool) -> bool:
        """Return whether reverse mode gives the derivative of the outputs: no part is detached."""
        gap = self._jacobian_gap(Tangents.differences, precise)
        return gap <= (_DETACHED if precise else _ROUGH)

    def _outputs(self, params: Tensors) -> Tensor:
        step = self.step
        return self.problem.predict(params, step.state.buffers, step.batch, step.key)[0]

    def _slopes(self, params: Tensors) -> Tensors:
        leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
        with torch.enable_grad():
            outputs = self._outputs(leaves)
            loss = self.problem.learned_loss(self.phi, outputs, self.step.batch.targets)
        values = gradient_of(loss, list(leaves.values()))
        return dict(zip(leaves, values, strict=True))

    def _difference(
        self, function: Callable[[Tensors], Any], direction: Tensors, size: float
    ) -> Any:
        params = self.step.state.params
        with torch.no_grad():
            ahead = function(moved(params, direction, size))
            behind = function(moved(params, direction, -size))
        return pytree.tree_map(lambda a, b: (a - b) / (2 * size), ahead, behind)

    @cached_property
    def _wide(self) -> Probe | None:
        """The probe in double precision; None if the model does not support it."""
        given = (*self.step.state.params.values(), *self.phi.values())
        if all(value.dtype is torch.float64 for value in given):
            return self
        step = pytree.tree_map_only(Tensor, double, self.step)
        phi, drawn = pytree.tree_map(double, (self.phi, self.drawn))
        wide = replace(self, step=step, phi=phi, drawn=drawn)
        return wide if runs(lambda: wide._slopes(step.state.params)) else None


_WORDS = {
    Tangents.forward: "forward-mode derivatives",
    Tangents.unfused: "forward-mode derivatives",
    Tangents.reverse: "derivatives by double backward",
    Tangents.differences: "finite differences of the outputs",
}


def _gap(one: Tensors, other: Tensors, noise: float) -> float:
    """Return the distance of two vectors relative to the length of the second."""
    scale = float(norm(other.values())) + noise
    return float(norm([one[name] - other[name] for name in other])) / scale if scale else 0.0


def _percent(gap: float) -> str:
    return f"{100 * gap:.2g} %"
