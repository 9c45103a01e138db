"""Logs, evaluates, saves and recovers a run between two segments."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from metaloss.config import Compile
from metaloss.contracts import Plan, Progress
from metaloss.core.parts.setup import Setup
from metaloss.core.steps.state import Meter, TrainState, snapshot
from metaloss.core.storage import checkpoint
from metaloss.core.training.best import (
    AVERAGE,
    CURRENT,
    Best,
    candidates,
    metrics_of,
    noted,
)
from metaloss.core.training.closeness import cosine_to_exact
from metaloss.core.training.evaluate import outputs_of
from metaloss.core.training.interrupt import Interrupt
from metaloss.core.training.jury import goes_back, measured
from metaloss.core.training.ladder import Ladder
from metaloss.core.training.made_of import made_of, sketches
from metaloss.core.training.recorder import Recorder, read_meter
from metaloss.core.training.recording import Recording
from metaloss.core.training.recovery import Recovery
from metaloss.core.training.saved import pack_run, unpack_run
from metaloss.core.training.verdict import Jury
from metaloss.data.targets.scores import task_scores
from metaloss.losses.base import phi_of
from metaloss.meta_optimizers.engine import Rule
from metaloss.types import Tensors


class Trainer:
    """Trains a run from its start, or from a checkpoint, to its end; `loop.train` calls it.

    ``interrupt`` is checked during φ's start. ``made`` is the result of `made_of` when the run
    began; None: the current one.
    """

    def __init__(
        self,
        setup: Setup,
        folder: Path,
        recorder: Recorder,
        interrupt: Interrupt,
        made: Mapping[str, Any] | None = None,
    ) -> None:
        self.setup, self.recorder = setup, recorder
        self.made = dict(made or made_of(setup))
        self._sketches = sketches(setup) if setup.ranks.leads else None
        self._folder, self._interrupt = folder, interrupt
        self.progress = Progress()
        self.best = Best()
        self.ended = (0, CURRENT)
        self.last_phi: Tensors = {}
        self.metrics: dict[str, float] = {}
        self.rows: dict[str, torch.Tensor] = {}
        self.jury = Jury(setup)
        self.train_seconds = self.compile_seconds = 0.0
        inner = setup.advance.fresh("train", 0)
        phi = phi_of(setup.loss)
        self.state = setup.anchored(setup.state(inner, phi))
        start = snapshot(self.state)
        ladder = Ladder(learns=setup.schedule.learns, good=start, start=start)
        self.recovery = Recovery(setup, recorder, ladder)
        config = setup.config
        numbers = sum(value.numel() for value in phi.values())
        points = 0 if setup.engine.rule is Rule.l2rw else config.record_phi  # weights of one batch
        self.recording = Recording(points, config.steps, setup.schedule, numbers)

    def begin(self, phi: Tensors | None = None) -> None:
        """Log the start, and write the first checkpoint. ``phi``: the started φ, or None."""
        setup = self.setup
        if phi is None:
            phi = setup.start.begin(
                setup.loss, setup.task.task_loss, setup.task.outputs, setup.config.seed, self.report
            )
        self.state = setup.anchored(setup.state(self.state.inner, phi))
        self.ladder.phase_begins(self.state)
        self.progress = setup.schedule.begins
        if setup.schedule.offline_total() > self.progress.offline:
            self._curves("offline")
        else:
            self._train_begins()
        self.save()

    def report(self, step: int, numbers: Any) -> None:
        """Log the progress of φ's start."""
        self._interrupt.check(
            f"no checkpoint yet; begin again with metaloss train --resume {self._folder}"
        )
        self.recorder.log(step, "start", step, numbers)

    def say_what_takes_long(self) -> None:
        """Send a message if the first steps take long, or if all steps are slow."""
        if self.setup.config.compile is Compile.on:
            message = "compiling the steps: up to two minutes"
            self.recorder.notice(self.step, message, level="info")
        if self.setup.problem.model.foreign_randomness:
            self.recorder.notice(
                self.step,
                "the model draws random numbers outside of nn.Dropout: they are seeded at every "
                "step, which is slower and cannot be compiled",
            )

    def next_plan(self) -> Plan | None:
        """Return the next plan; None at the end."""
        if self.ladder.diverged or self._stopped_early():
            return None
        return self.setup.schedule.plan(self.progress, self.setup.config.steps)

    def is_due(self, plan: Plan) -> bool:
        """Return whether the state after a plan is logged, evaluated or saved."""
        last = self.progress.steps_in(plan.phase)
        now = self.progress.after(plan).steps_in(plan.phase)
        every = (
            getattr(self.setup.config, f"{what}_every") for what in ("log", "eval", "checkpoint")
        )
        return self._is_last(plan.phase, now) or any(_crossed(last, now, n) for n in every)

    def took(self, plan: Plan, state: TrainState, seconds: float, compiled: float = 0.0) -> None:
        """Store the state after a plan; log, evaluate and save it if necessary.

        ``seconds`` is its duration, without the time that was spent on compiling before.
        """
        if compiled:
            self.compile_seconds += compiled
            self.recorder.notice(
                self.step, f"compiled {_words(plan)} in {compiled:.0f} s", level="info"
            )
        due = self.is_due(plan)
        self.recording.note(plan, self.progress, self.state.phi, state.phi)
        self.state = state
        before, self.progress = self.progress, self.progress.after(plan)
        if plan.phase == "train":
            self.train_seconds += seconds
        if due:
            self._record(plan, before)

    def end(self) -> None:
        """Set the final weights, metrics and φ."""
        if self.ladder.diverged:
            self.metrics = self._evaluate()
        weights = candidates(self.state)
        last = AVERAGE if AVERAGE in weights else CURRENT
        self.ended, inner = (self.progress.train, last), weights[last]
        self.metrics = metrics_of(last, self.metrics)
        if self.best.inner is not None and goes_back(self.setup, self.best, self.rows.get(last)):
            self.ended, inner = self.best.moment, self.best.inner
            self.metrics = dict(self.best.metrics or {})
        means, self.last_phi = self.state.averages, self.state.phi
        phi = means.phi if means is not None and means.phi else self.state.phi
        self.state = self.state._replace(inner=inner, phi=phi)
        self.recovery.compare(self.metrics, self.step)

    @property
    def ladder(self) -> Ladder:
        """The states that the guard can restore, and its actions."""
        return self.recovery.ladder

    def _is_last(self, phase: str, place: int) -> bool:
        """Return whether a phase ends at a place."""
        if phase == "offline":
            return place == self.setup.schedule.offline_total()
        return place == self.setup.config.steps

    # ------------------------------------------------------------------------ what is seen

    def _record(self, plan: Plan, before: Progress) -> None:
        config = self.setup.config
        last, now = before.steps_in(plan.phase), self.progress.steps_in(plan.phase)
        is_last = self._is_last(plan.phase, now)
        at_end, ends_offline = (is_last and plan.phase == name for name in ("train", "offline"))
        evaluates = _crossed(last, now, config.eval_every) or at_end
        # The last losses of the offline phase must not be averaged with the first ones of training.
        if evaluates or ends_offline or _crossed(last, now, config.log_every):
            self._log(plan, evaluates)
        if ends_offline and not self.ladder.diverged:
            self._train_begins()
        if _crossed(last, now, config.checkpoint_every) or ends_offline or at_end:
            self.save()

    def _log(self, plan: Plan, evaluates: bool) -> None:
        began = time.perf_counter()
        numbers, bad = read_meter(self.state.meter, self.state.guard.bad)
        if plan.phase == "train":
            # On CUDA, the line above waits for steps that are only queued.
            self.train_seconds += time.perf_counter() - began
        self.state = self.state._replace(meter=Meter.fresh(self.setup.device))
        if evaluates:
            if plan.phase == "train":
                self.metrics = self._evaluate()
                numbers |= self.metrics
                if not self.jury.frozen:
                    numbers |= cosine_to_exact(self.setup, self.state, self.progress)
            if self.setup.schedule.learns or self.setup.replayed:
                self._curves(plan.phase)
        self.recorder.log(self.step, plan.phase, self.progress.steps_in(plan.phase), numbers)
        if evaluates and plan.phase == "train":
            self._note_best()
        found = self.metrics if evaluates and plan.phase == "train" else None
        self.state = self.recovery.look(self.state, plan, self.progress, bad, found)
        if found is not None and self.rows and not self.ladder.diverged:
            given = (self.best, self.rows, self.ladder.start.phi, self.progress.train)
            self.state, message = self.jury.look(self.state, *given)
            if message:
                self.ladder.all_well(self.state)
                self.recorder.notice(self.step, message, level="info")

    def _evaluate(self) -> dict[str, float]:
        found, self.rows = measured(self.setup, self.state)
        return found

    def further_metrics(self) -> dict[str, float]:
        """Return the further metrics of the task for the final weights, by split and name."""
        task = self.setup.task
        found: dict[str, float] = {}
        for split in ("valid", "test") if task.metrics else ():
            rows = getattr(task, split)
            outputs = outputs_of(self.setup.problem.model, self.state.inner, rows.inputs)
            values = task_scores(task, outputs, rows.targets)
            found |= {f"{split}/{name}": value for name, value in values.items()}
        return found

    def _train_begins(self) -> None:
        """Evaluate the initial weights of training: step 0 of the learning curve."""
        if self.setup.schedule.offline_total():
            # The first step of training does the same, and the guard needs it too. The state of the
            # update rule begins again, with the η of training.
            inner = self.setup.advance.fresh("train", 0)
            state = self.setup.state(inner, self.state.phi)
            self.state = state._replace(anchor=self.state.anchor)
        self.ladder.phase_begins(self.state)
        self.metrics = self._evaluate()
        self.recorder.log(self.step, "train", 0, self.metrics)
        self._curves("train")
        self._note_best()
        self.jury.begins(self.state)

    def _curves(self, phase: str) -> None:
        setup = self.setup
        self.recorder.curves(self.step, phase, setup.loss, self.state.phi, setup.task.outputs)

    def _note_best(self) -> None:
        task, schedule = self.setup.task, self.setup.schedule
        name = f"{'jury' if task.jury else 'valid'}/{task.metric_name}"
        found = candidates(self.state)
        if not schedule.early_stopping:
            found = {kind: inner._replace(optimizer=None) for kind, inner in found.items()}
        by, step = (name, task.goal), self.progress.train
        self.best = noted(self.best, found, self.metrics, self.rows, by=by, step=step)

    def _stopped_early(self) -> bool:
        patience = self.setup.schedule.early_stopping
        return patience > 0 and self.best.waited >= patience

    @property
    def step(self) -> int:
        """The number of steps done, over all phases."""
        return self.setup.start_total + self.progress.offline + self.progress.train

    # ------------------------------------------------------------------------- checkpoints

    def save(self) -> None:
        """Write a checkpoint."""
        if self.setup.ranks.leads:
            content = {**pack_run(self), "made_of": self.made, "sketches": self._sketches}
            checkpoint.save(self._folder / "checkpoints", self.step, content)

    def restore(self, content: Mapping[str, Any]) -> None:
        """Restore a checkpoint."""
        unpack_run(self, content)
        if self.next_plan() is None and not self.ladder.diverged:
            # The run ends here, and its last evaluation may be of an earlier step.
            before, self.metrics = self.metrics, self._evaluate()
            if self.metrics != before:
                self.recorder.log(self.step, "train", self.progress.train, self.metrics)
                self._note_best()


def _words(plan: Plan) -> str:
    kind = "a step with a meta-step" if plan.meta_step else "a step without a meta-step"
    return f"{kind}, phase {plan.phase}"


def _crossed(last: int, now: int, every: int) -> bool:
    """Return whether a multiple of ``every`` lies in (last, now]."""
    return now // every > last // every
