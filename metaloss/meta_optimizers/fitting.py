"""An engine that is right for a model: chosen before φ first moves, or refused with one that is."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch

from metaloss import registry
from metaloss.errors import UnsupportedError
from metaloss.inner.problem import InnerProblem, Tangents
from metaloss.meta_optimizers.outer import OuterRule
from metaloss.meta_optimizers.probe import Probe, few
from metaloss.types import InnerState, Tensors, Window

_LOGGER = logging.getLogger(__name__)

_ENGINES = ("mixed", "torchopt", "higher", "finite_difference")
_SAID = {
    Tangents.unfused: "without fused kernels",
    Tangents.reverse: "by two reverse passes: exact as well, a step takes about a third longer",
}


def fitted(
    problem: InnerProblem, engine: OuterRule, phi: Tensors, state: InnerState, window: Window
) -> InnerProblem:
    """Return the problem with derivatives that are right for its model and loss.

    Args:
        problem: The functions of an inner step, of one member and one process.
        engine: How φ is to move.
        phi: φ by name.
        state: A state to try the model at.
        window: Batches to try it on.

    Raises:
        UnsupportedError: If the engine has none; the message names engines that were tried on this
            model and are right, if there are any.
    """
    if not engine.methods:
        return problem
    if written := problem.model.writes_params:
        raise UnsupportedError(
            f"the model changes its parameter {written[0]!r} in its forward pass, as "
            "nn.Embedding(max_norm=...) does, and no engine differentiates that: normalise a copy "
            "in the forward pass, or leave the loss as it is (schedule=static)"
        )
    probe = Probe.of(problem, phi, state, window)
    method, fault = _first_right(probe, engine)
    if method is not None:
        if fault is not None:
            _LOGGER.warning(
                "meta_optimizer: %s, so the model is differentiated %s", fault, _SAID[method]
            )
        return replace(problem, tangents=method)
    name = next((n for n in _ENGINES if type(engine) is registry.get("meta_optimizer", n).cls), "?")
    others = [other for other in _ENGINES if other != name and _works(other, probe, state, window)]
    way_out = (
        f"use meta_optimizer={' or '.join(others)} (tried on this model: right)"
        if others
        else "none of the engines is right for it: leave the loss as it is (schedule=static)"
    )
    raise UnsupportedError(
        f"meta_optimizer={name} cannot be used with this model: {fault}: {way_out}"
    )


def _first_right(probe: Probe, engine: OuterRule) -> tuple[Tangents | None, str | None]:
    """Return the cheapest right way to differentiate, and what was wrong with the first one."""
    first = None
    if engine.exact and (fault := probe.loss_fault()) is not None:
        return None, fault
    for method in engine.methods:
        fault = probe.fault(method)
        if fault is None:
            return method, first
        first = first or fault
    return None, first


def _works(name: str, probe: Probe, state: InnerState, window: Window) -> bool:
    """Whether another engine is right for the model, and goes through a window on a few rows."""
    engine = registry.get("meta_optimizer", name).cls()
    method, _ = _first_right(probe, engine)
    if method is None:
        return False
    rows = len(probe.step.batch.targets)
    small = window._replace(
        batches=tuple(
            few(batch) if rows < len(batch.targets) else batch for batch in window.batches[:2]
        ),
        keys=window.keys[:2],
        meta_batch=few(window.meta_batch),
    )
    try:
        found = engine.meta_gradient(
            replace(probe.problem, tangents=method), probe.phi, state, small
        )
    except Exception:  # PyTorch refuses in many ways
        return False
    return all(bool(torch.isfinite(value).all()) for value in found.gradient.values())
