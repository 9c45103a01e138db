"""Tests before the first meta-step whether an engine's derivatives are right for a model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import torch

from metaloss import registry
from metaloss.errors import UnsupportedError
from metaloss.inner.dispatch import dispatch_kept
from metaloss.inner.problem import InnerProblem, Tangents
from metaloss.meta_optimizers.engine import Engine
from metaloss.meta_optimizers.probe import Probe
from metaloss.meta_optimizers.probe_rows import few, said
from metaloss.meta_optimizers.reverse_unroll import ReverseUnroll
from metaloss.meta_optimizers.row_samples import refuse_coupled_rows
from metaloss.types import Batch, InnerState, Tensors, Window

_LOGGER = logging.getLogger(__name__)

_ENGINES = ("mixed", "torchopt", "higher", "finite_difference")
_SAID = {
    Tangents.unfused: "without fused kernels",
    Tangents.reverse: "by two reverse-mode passes: exact too, but a step may take longer",
}


def fitted(
    problem: InnerProblem, engine: Engine, phi: Tensors, state: InnerState, window: Window
) -> InnerProblem:
    """Return the problem with derivatives that are right for its model and loss.

    It is that of one member and one process. The model is tested at a state, on a window's batches.

    Raises:
        UnsupportedError: If the engine has no right derivatives; the message names engines that
            were tested on this model and are right, if there are any.
    """
    if not engine.methods:
        return problem
    if written := problem.model.writes_params:
        raise UnsupportedError(
            f"the model changes its parameter {written[0]!r} in its forward pass, as "
            "nn.Embedding(max_norm=...) does, and no engine can differentiate this: normalise a "
            "copy in the forward pass, or use a fixed loss (schedule=static)"
        )
    share = engine.rows if isinstance(engine, ReverseUnroll) else 1.0
    refuse_coupled_rows(problem, share, phi, state, window)
    probes = Probe.two(problem, phi, state, window)
    method, fault = _first_right(probes, engine)
    if method is Tangents.reverse and engine.methods == (method,):
        # The unroll of a library also differentiates the optimizer's update, in its own way.
        tried = _trouble(engine, probes[0], state, window)
        method, fault = (None, tried) if tried else (method, fault)
    if method is not None:
        if fault is not None:
            _LOGGER.warning(
                "meta_optimizer: %s, so the model is differentiated %s", fault, _SAID[method]
            )
        return replace(problem, tangents=method)
    name = next((n for n in _ENGINES if type(engine) is registry.get("meta_optimizer", n).cls), "?")
    others = [one for one in _ENGINES if one != name and _works(one, probes, state, window)]
    way_out = (
        f"use meta_optimizer={' or '.join(others)}, which is right for this model"
        if others
        else "no engine is right for it: use a fixed loss (schedule=static)"
    )
    raise UnsupportedError(
        f"meta_optimizer={name} cannot be used with this model: {fault}: {way_out}"
    )


def _first_right(probes: Sequence[Probe], engine: Engine) -> tuple[Tangents | None, str | None]:
    """Return the cheapest method that is right, and what was wrong with the first one."""
    first = None
    if engine.exact and (fault := probes[0].loss_fault()) is not None:
        return None, fault
    for method in engine.methods:
        fault = next((found for probe in probes if (found := probe.fault(method))), None)
        if fault is None:
            return method, first
        first = first or fault
    return None, first


def _works(name: str, probes: Sequence[Probe], state: InnerState, window: Window) -> bool:
    """Return whether another engine is right for the model, on a few rows."""
    engine = registry.get("meta_optimizer", name).cls()
    method, _ = _first_right(probes, engine)
    if method is None:
        return False
    probe = replace(probes[0], problem=replace(probes[0].problem, tangents=method))
    return _trouble(engine, probe, state, window) is None


def _trouble(engine: Engine, probe: Probe, state: InnerState, window: Window) -> str | None:
    """Return why an engine fails for a window of a few rows; None if it does not."""
    rows = len(probe.step.batch.targets)
    cut = few if rows < len(window.batches[0].targets) else Batch._make
    small = window._replace(
        batches=tuple(cut(batch) for batch in window.batches[:2]),
        keys=window.keys[:2],
        meta_batch=cut(window.meta_batch),
    )
    try:
        with dispatch_kept():
            found = engine.meta_gradient(probe.problem, probe.phi, state, small)
    except Exception as error:  # PyTorch raises many types
        return f"it fails: {said(error)}"
    finite = all(bool(torch.isfinite(value).all()) for value in found.gradient.values())
    known = all(bool(torch.isfinite(value).all()) for value in found.state.params.values())
    return None if finite or not known else "its meta-gradient is not finite"
