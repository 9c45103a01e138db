"""What a trainer does after bad steps: the action, and the state after it."""

from __future__ import annotations

from collections.abc import Mapping

from metaloss.config import GuardMode
from metaloss.contracts import Plan, Progress
from metaloss.core.parts.setup import Setup
from metaloss.core.steps.state import Snapshot, TrainState, dropped
from metaloss.core.training.evaluate import constant_metrics, is_chance
from metaloss.core.training.ladder import Ladder
from metaloss.core.training.recorder import Recorder
from metaloss.errors import DivergedError
from metaloss.starts import Imitate

_WHAT = {
    "restore": "restored the last good state, η cut tenfold",
    "imitate": "restarted the loss as an imitation of the task loss",
    "give up": "gave up: diverged",
}
# A model also learns nothing if the inputs say nothing about the targets.
_WHOSE_FAULT = " (if it is so with schedule=static too, it is not the learned loss)"


class Recovery:
    """Checks a run whenever it is logged, and recovers it.

    Attributes:
        constants: The metrics of the best constant prediction, by name.
        chance: Whether the finished run is not better than these; False before the end.
    """

    def __init__(self, setup: Setup, recorder: Recorder, ladder: Ladder) -> None:
        self._setup, self._recorder, self.ladder = setup, recorder, ladder
        self.constants = constant_metrics(setup.task)
        self.chance = False

    def look(
        self,
        state: TrainState,
        plan: Plan,
        progress: Progress,
        bad: int,
        metrics: Mapping[str, float] | None,
    ) -> TrainState:
        """Return the state to continue with: the given one if nothing is wrong.

        ``bad`` is the number of bad steps since the last check. ``metrics`` are those of an
        evaluation at this step; None without one.

        Raises:
            DivergedError: If something is wrong with ``guard=raise``.
        """
        config, task = self._setup.config, self._setup.task
        if config.guard is GuardMode.off:
            return state
        reason = f"{bad} bad steps since the last line" if bad else ""
        done = progress.train
        due = metrics is not None and self.ladder.is_due(done, config.steps)
        # A run that is too short for an earlier check may have learned nothing, but has not
        # diverged. There is a message at its end.
        due = due and not (done >= config.steps and not self.ladder.events)
        if not reason and due and metrics and is_chance(metrics, self.constants, task, "valid"):
            reason = f"no better than a constant prediction after {done} steps"
        if not reason:
            self.ladder.all_well(state)
            return state
        if config.guard is GuardMode.raise_:
            raise DivergedError(f"step {self._step(progress)}: {reason} (guard=raise)")
        back = self.ladder.good if bad else self.ladder.start
        return self.climb(state, plan, progress, reason, back)

    def climb(
        self, state: TrainState, plan: Plan, progress: Progress, reason: str, back: Snapshot
    ) -> TrainState:
        """Do the next action, with ``back`` as the state to restore; return the new state."""
        action = self.ladder.next_rung(phi_moves=self._setup.schedule.moves_in(plan.phase))
        # At the end, a restored state could not be trained any more.
        if plan.phase == "train" and progress.train >= self._setup.config.steps:
            action = "give up"
        if action == "give up":
            self.ladder.diverged = True
        else:
            state = self._mended(state, action, back)
            self.ladder.since = progress.train
            self.ladder.all_well(state)
        step = self._step(progress)
        self.ladder.events.append({"step": step, "reason": reason, "action": action})
        whose = _WHOSE_FAULT if self.ladder.learns and action == "give up" else ""
        self._recorder.notice(step, f"guard: {reason}: {_WHAT[action]}{whose}")
        return state

    def compare(self, metrics: Mapping[str, float], step: int) -> None:
        """Warn if a run ends not better than a constant prediction, but has not diverged."""
        task = self._setup.task
        self.chance = bool(metrics) and is_chance(metrics, self.constants, task)
        if self.chance and not self.ladder.diverged:
            name = f"test/{task.metric_name}"
            self._recorder.notice(
                step,
                f"the model has learned nothing: {name} is {metrics[name]:.4g}, that of the best "
                f"constant prediction {self.constants[name]:.4g}",
            )

    def _mended(self, state: TrainState, action: str, back: Snapshot) -> TrainState:
        setup = self._setup
        phi, rule = back.phi, back.rule
        shrink = None if state.rule is None else state.rule.shrink
        if action == "imitate":
            imitate = setup.start if isinstance(setup.start, Imitate) else Imitate()
            phi = imitate.fit(
                setup.loss, setup.task.task_loss, setup.task.outputs, setup.config.seed
            )
            rule = setup.engine.rule_init(phi)
        if rule is not None and shrink is not None:
            rule = rule._replace(shrink=shrink * (0.1 if action == "restore" else 1.0))
        return setup.state(back.inner, phi)._replace(
            rule=rule, ledger=state.ledger, anchor=state.anchor, pending=dropped(state.pending)
        )

    def _step(self, progress: Progress) -> int:
        return self._setup.start_total + progress.offline + progress.train
