"""What follows while a run goes on if the jury's metric has not improved for a while."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metaloss.contracts import Verdict
from metaloss.core.parts.setup import Setup
from metaloss.core.steps.averages import begun
from metaloss.core.steps.guard import GuardState
from metaloss.core.steps.state import Snapshot, TrainState, dropped, snapshot
from metaloss.core.training.best import Best
from metaloss.core.training.jury import ACTS, standard_errors
from metaloss.types import Tensors

_SAID = {
    Verdict.freeze: "the learned loss stays as it is from here",
    Verdict.back: "back to the state of step {step}; the learned loss stays as it was there",
    Verdict.start: "back to the state of step {step}; the learned loss stays as at its start",
}


class Jury:
    """Looks at every evaluation, and changes the run once at most.

    Attributes:
        moment: The state at the best moment; None if the run cannot go back to it.
        done: What was done, at which training step, and the step of the best moment; None: nothing.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._wanted = setup.schedule.verdict
        self.moment: Snapshot | None = None
        self.done: dict[str, Any] | None = None

    @property
    def frozen(self) -> bool:
        """Whether φ does not move any more."""
        return self.done is not None

    def begins(self, state: TrainState) -> None:
        """Store the first state of training, which may turn out to be the best."""
        if self._wanted in (Verdict.back, Verdict.start):
            self.moment = snapshot(state)

    def look(
        self, state: TrainState, best: Best, rows: Mapping[str, Tensor], start: Tensors, step: int
    ) -> tuple[TrainState, str]:
        """Return the state to go on with, and a message if something was done.

        ``best`` is the best evaluation so far, this one included. ``rows`` has the metric of each
        row of the jury at this one, by the kind of weights. ``start`` is φ at its start.
        """
        if self._wanted is Verdict.choose or self.frozen:
            return state, ""
        returns = self._wanted is not Verdict.freeze
        if best.step == step:
            self.moment = snapshot(state) if returns else None
            return state, ""
        if best.waited < self._setup.schedule.patience:
            return state, ""
        if returns and not self._is_worse(best, rows):
            return state, ""
        if step == self._setup.config.steps:
            return state, ""  # nothing would follow
        self.done = {"action": self._wanted.name, "step": step, "best_step": best.step}
        said = _SAID[self._wanted].format(step=best.step)
        message = f"jury: no better for {best.waited} evaluations: {said}"
        return self._after(state, start), message

    def _is_worse(self, best: Best, rows: Mapping[str, Tensor]) -> bool:
        """Return whether all weights of now are worse than the best ones, beyond noise."""
        assert best.rows is not None
        goal = self._setup.task.goal
        return all(standard_errors(now, best.rows, goal) > ACTS for now in rows.values())

    def _after(self, state: TrainState, start: Tensors) -> TrainState:
        back, phi, rule = self.moment, state.phi, state.rule
        if back is not None:
            phi, rule = (start if self._wanted is Verdict.start else back.phi), back.rule
        elif state.averages is not None and state.averages.phi:
            phi = state.averages.phi
        assert rule is not None
        # η = 0
        state = state._replace(phi=phi, rule=rule._replace(shrink=torch.zeros_like(rule.shrink)))
        if back is None:
            means = state.averages
            kept = means and means._replace(phi=phi if means.phi else {})
            return state._replace(averages=kept)
        setup = self._setup
        return state._replace(
            inner=back.inner,
            pending=dropped(state.pending),
            guard=GuardState.fresh(setup.device, float(state.guard.constant)),
            averages=begun(setup.advance.step.plain.decays, back.inner, phi),
        )

    def packed(self) -> list[Any] | None:
        """Return plain values for a checkpoint; None: there is nothing to remember."""
        if self.moment is None and self.done is None:
            return None
        return [self.moment and [*map(pytree.tree_leaves, self.moment)], self.done]

    def restore(self, content: list[Any] | None, template: TrainState) -> None:
        """Restore the result of :meth:`packed`."""
        moment, self.done = content or (None, None)
        like = snapshot(template)
        forms = [pytree.tree_structure(part) for part in like]
        self.moment = moment and Snapshot(
            *(pytree.tree_unflatten(*pair) for pair in zip(moment, forms, strict=True))
        )
