"""The steps of a `Learner`, one for each form that its model and loss have had."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from metaloss import registry
from metaloss.config import Compile, Precision
from metaloss.core.distributed.alike import check_rows
from metaloss.core.distributed.peers import Peers
from metaloss.core.learner.steps import LearnerStep
from metaloss.errors import MetalossError, known_name
from metaloss.inner.accumulated import (
    AccumulatedProblem,
    AccumulatedShardedProblem,
    MicroBatches,
    refuse_coupled_parts,
)
from metaloss.inner.model.modules import fingerprint
from metaloss.inner.optimizers.rates import RateSchedule
from metaloss.inner.problem import InnerProblem
from metaloss.inner.weighted import sees
from metaloss.losses.rows import OF_RUNS
from metaloss.meta_optimizers.engine import Engine, Rule
from metaloss.meta_optimizers.fitting import fitted
from metaloss.types import Batch, InnerState, Tensors, Window

_MOST = 16  # forms of a model, such as with and without dropout, are kept ready


def refuse_rows_of_runs(loss: nn.Module, where: str) -> None:
    """Raise if a loss sees of a row what only a run keeps; ``where`` it is used instead."""
    if seen := sorted(sees(loss) & OF_RUNS):
        raise MetalossError(
            f"the loss sees {', '.join(seen)} of each training row, which {where} does not keep: "
            "expected a loss without it, or a run (metaloss.train)"
        )


def refuse_without_phi(loss: nn.Module, phi: Tensors) -> None:
    """Raise if a loss has no parameters that a meta-step could move."""
    if not phi:
        raise MetalossError(
            f"the loss {type(loss).__name__} has no parameters to learn: expected a learned loss, "
            "such as MLPLoss()"
        )


def engine_of(meta_optimizer: Engine | str) -> Engine:
    """Return the engine of a learner, which may be given by its registered name."""
    engine: Engine = registry.as_part(
        "meta_optimizer",
        meta_optimizer,
        Engine,  # type: ignore[type-abstract]
        option="meta_optimizer",
        example="Mixed(lr=0.003)",
    )
    if engine.lr_schedule is not RateSchedule.constant:
        raise MetalossError(
            f"meta_optimizer.lr_schedule={engine.lr_schedule.name}: a loop of your own has no "
            "known number of steps; expected constant"
        )
    if engine.rule is Rule.l2rw:
        raise MetalossError(
            "meta_optimizer.rule=l2rw: a Learner does not know which row is which: expected adam, "
            "sgd or rmsprop, or a run (metaloss.train)"
        )
    for option in ("anchor", "ema"):
        if value := getattr(engine, option):
            raise MetalossError(
                f"meta_optimizer.{option}={value:g}: only a run (metaloss.train) has one: expected "
                "0"
            )
    return engine


def autocast_of(precision: Precision | str) -> torch.dtype | None:
    """Return the type of training forward passes; None: that of the parameters."""
    chosen = Precision(known_name("precision", precision, [one.value for one in Precision]))
    return torch.bfloat16 if chosen is Precision.bf16 else None


class Forms:
    """Returns the step for a model and loss as they are, and examines them if they have changed."""

    def __init__(
        self,
        problem: InnerProblem,
        engine: Engine,
        peers: Peers,
        *,
        guarded: bool,
        compile: Compile,
    ) -> None:
        refuse_rows_of_runs(problem.loss, "a Learner")
        self._problem, self._engine, self._peers = problem, engine, peers
        self._guarded, self._compile = guarded, compile
        self._known: dict[Any, LearnerStep] = {}

    def step(self, phi: Tensors, state: InnerState, window: Window, *, learns: bool) -> LearnerStep:
        """Return the step for the current model and loss.

        Raises:
            MetalossError: If the model cannot be used with the engine, or not be compiled.
        """
        model, loss = self._problem.model, self._problem.loss
        if learns:
            refuse_without_phi(loss, phi)
        numbers = self._compile is not Compile.off and fingerprint(model.module, numbers=True)
        steps = min(len(window.batches), 2)
        given = (*window.batches, window.meta_batch)
        parted = any(isinstance(batch, MicroBatches) for batch in given)
        form = (model.structure, fingerprint(loss), numbers, learns, steps, parted)
        if parted and learns and (share := getattr(self._engine, "rows", 1)) < 1:
            raise MetalossError(
                f"meta_optimizer.rows={share:g} with accumulate=True: expected one of the two"
            )
        if form not in self._known:
            if len(self._known) == _MOST:
                self._known.pop(next(iter(self._known)))
            self._known[form] = self._examined(phi, state, window, learns=learns)
        return self._known[form]

    def _examined(
        self, phi: Tensors, state: InnerState, window: Window, *, learns: bool
    ) -> LearnerStep:
        given = (window.batches[0], window.meta_batch)
        window = window._replace(
            batches=tuple(map(_first_part, window.batches)),
            meta_batch=_first_part(window.meta_batch),
        )
        batch, key, model = window.batches[0], window.keys[0], self._problem.model
        if model.traits is None:
            model.examine(state.params, state.buffers, batch.inputs, key)
        # Made anew, because it finds which parameters in φ are frozen.
        accumulated = AccumulatedProblem.of(self._problem)
        for batches in given:
            refuse_coupled_parts(accumulated, phi, state, batches, key)
        problem: InnerProblem = accumulated
        if learns:
            problem = fitted(problem, self._engine, phi, state, window)
        if self._peers.ranks.size > 1:
            sharded = AccumulatedShardedProblem.of(problem, ranks=self._peers.ranks)
            check_rows(sharded, state, batch, key)
            problem = sharded
        step = LearnerStep(problem, self._engine, guarded=self._guarded, compile=self._compile)
        step.check(phi, state, batch, key)
        return step


def _first_part(batch: Any) -> Batch:
    """Return a batch, or the first of its parts, on which a model can be examined."""
    return batch.parts[0] if isinstance(batch, MicroBatches) else batch
