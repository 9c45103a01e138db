"""What the trainer does when the guard saw something: which rung, and the state after it."""

from __future__ import annotations

from collections.abc import Mapping

from metaloss.config import GuardMode
from metaloss.contracts import Plan, Progress
from metaloss.core.parts.setup import Setup
from metaloss.core.steps.state import Snapshot, TrainState
from metaloss.core.training.evaluate import constant_metrics, is_chance
from metaloss.core.training.ladder import Ladder, learned_nothing
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
    """Looks at a run whenever numbers are logged, and mends it by the ladder.

    Args:
        setup: The parts.
        recorder: Where people are told.
        ladder: The snapshots, and the rungs taken so far.

    Attributes:
        constants: The metrics of the best constant prediction, by name.
        chance: Whether the run's end is no better than they are; False before its end.
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
        """Return the state to go on with: the given one if all is well.

        Args:
            state: The state now.
            plan: What was done last.
            progress: How far the run is.
            bad: Bad steps since the last look.
            metrics: What an evaluation has just found, None if there was none.

        Raises:
            DivergedError: If something is wrong and the guard is to raise.
        """
        config = self._setup.config
        if config.guard is GuardMode.off:
            return state
        reason = f"{bad} bad steps since the last line" if bad else ""
        done = progress.train
        due = metrics is not None and self.ladder.is_due(done, config.steps)
        # A run too short to have been looked at before has learned nothing: it is told so at its
        # end, but nothing diverged.
        due = due and not (done >= config.steps and not self.ladder.events)
        if not reason and due and metrics is not None and self._dead(metrics):
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
        """Take the next rung, with ``back`` as the state to go back to; return the new state."""
        action = self.ladder.next_rung(phi_moves=self._setup.schedule.moves_in(plan.phase))
        # At the very end nothing that is restored could still be trained.
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
        """Say it if a run that was not given up ends no better than a constant prediction."""
        task = self._setup.task
        self.chance = bool(metrics) and is_chance(metrics, self.constants, task)
        if self.chance and not self.ladder.diverged:
            name = f"test/{task.metric_name}"
            self._recorder.notice(
                step,
                f"the model has learned nothing: {name} is {metrics[name]:.4g}, that of the best "
                f"constant prediction {self.constants[name]:.4g}",
            )

    def _dead(self, metrics: Mapping[str, float]) -> bool:
        """Whether neither the metric nor the task loss beats a constant's on validation.

        Both, since the most frequent class can be the best answer to an imbalanced task, and a
        confident model can have a high task loss and few errors.
        """
        task = self._setup.task
        metric = metrics[f"valid/{task.metric_name}"]
        constant = self.constants[f"valid/{task.metric_name}"]
        return learned_nothing(metric, constant, task.goal) and learned_nothing(
            metrics["valid/task_loss"], task.constant_loss
        )

    def _mended(self, state: TrainState, action: str, back: Snapshot) -> TrainState:
        setup = self._setup
        phi, outer = back.phi, back.outer
        shrink = None if state.outer is None else state.outer.shrink
        if action == "imitate":
            imitate = setup.start if isinstance(setup.start, Imitate) else Imitate()
            phi = imitate.fit(
                setup.loss, setup.task.task_loss, setup.task.outputs, setup.config.seed
            )
            outer = setup.engine.outer_init(phi)
        if outer is not None and shrink is not None:
            outer = outer._replace(shrink=shrink * (0.1 if action == "restore" else 1.0))
        return setup.state(back.inner, phi)._replace(outer=outer)

    def _step(self, progress: Progress) -> int:
        return self._setup.start_total + progress.offline + progress.train
