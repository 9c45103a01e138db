"""The one loop over training steps."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from metaloss.config import GuardMode
from metaloss.contracts import Plan, Progress
from metaloss.core import checkpoint
from metaloss.core.evaluate import constant_metric, evaluate
from metaloss.core.guard import GuardState
from metaloss.core.interrupt import Interrupt
from metaloss.core.ladder import Ladder, learned_nothing
from metaloss.core.recorder import Recorder, read_meter
from metaloss.core.saved import (
    pack_ladder,
    pack_state,
    pack_tree,
    unpack_ladder,
    unpack_state,
    unpack_tree,
)
from metaloss.core.setup import Setup
from metaloss.core.state import Meter, Snapshot, TrainState, snapshot
from metaloss.errors import DivergedError
from metaloss.starts import Imitate
from metaloss.types import InnerState


@dataclass(kw_only=True)
class Best:
    """The best validation moment so far; ``inner`` is kept only where training goes back to it."""

    metrics: dict[str, float] | None = None
    step: int = 0
    waited: int = 0
    inner: InnerState | None = None


class Trainer:
    """Runs a setup from its start, or from a checkpoint, to its end.

    Args:
        setup: The parts.
        folder: The run's folder, where checkpoints go.
        recorder: Where numbers go.
        interrupt: Tells of Ctrl-C between two segments.
    """

    def __init__(
        self, setup: Setup, folder: Path, recorder: Recorder, interrupt: Interrupt
    ) -> None:
        self.setup, self.recorder = setup, recorder
        self._folder, self._interrupt = folder, interrupt
        self._hint = f"metaloss train --resume {folder}"
        self.progress = Progress()
        self.best = Best()
        self.metrics: dict[str, float] = {}
        self.train_seconds = 0.0
        self._constant = constant_metric(setup.task)
        inner = setup.advance.fresh("train", 0)
        phi = {name: value.detach().clone() for name, value in setup.loss.named_parameters()}
        self.state = self._state(inner, phi)
        start = snapshot(self.state)
        self.ladder = Ladder(learns=setup.schedule.learns, good=start, start=start)

    def begin(self) -> None:
        """Start φ, log the start, and write the first checkpoint."""
        setup = self.setup

        def report(step: int, numbers: Any) -> None:
            self._interrupt.check(f"no checkpoint yet; start over with {self._hint}")
            self.recorder.log(step, "start", step, numbers)

        phi = setup.start.begin(
            setup.loss, setup.task.task_loss, setup.task.outputs, setup.config.seed, report
        )
        self.state = self._state(self.state.inner, phi)
        self.ladder.phase_begins(self.state)
        if setup.schedule.offline_total():
            self._curves("offline")
        else:
            self._train_begins()
        self.save()

    def run(self) -> None:
        """Go on until the schedule ends, early stopping ends it, or the ladder gives up."""
        setup, steps, first = self.setup, self.setup.config.steps, True
        while not self.ladder.diverged and not self._stopped_early():
            plan = setup.schedule.plan(self.progress, steps)
            if plan is None:
                break
            began = time.perf_counter()
            self.state = setup.advance(self.state, plan, self.progress)
            before, self.progress = self.progress, _after(plan, self.progress)
            if plan.phase == "train":
                self.train_seconds += time.perf_counter() - began
            if first:
                self._say_what_is_slow()
                first = False
            self._record(plan, before)
            if self._interrupt.asked:
                self.save()
                self._interrupt.check(f"a checkpoint was written; go on with {self._hint}")
        if self.ladder.diverged:
            self.metrics = self._evaluate()
        if setup.schedule.early_stopping and self.best.inner is not None:
            self.state = self.state._replace(inner=self.best.inner)
            self.metrics = dict(self.best.metrics or {})

    def _say_what_is_slow(self) -> None:
        if self.setup.problem.model.foreign_randomness:
            self.recorder.notice(
                self.step,
                "the model draws random numbers outside of nn.Dropout: they are seeded at every "
                "step, which is slower and cannot be compiled",
            )

    # ------------------------------------------------------------------------ what is seen

    def _record(self, plan: Plan, before: Progress) -> None:
        config = self.setup.config
        last, now = _place(plan.phase, before), _place(plan.phase, self.progress)
        at_end = plan.phase == "train" and now == config.steps
        ends_offline = plan.phase == "offline" and now == self.setup.schedule.offline_total()
        evaluates = _crossed(last, now, config.eval_every) or at_end
        # The offline phase's last numbers must not be counted with the first ones of training.
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
            # On CUDA the reading above waits for the steps that were only queued until then.
            self.train_seconds += time.perf_counter() - began
        self.state = self.state._replace(meter=Meter.fresh(self.setup.device))
        if evaluates:
            if plan.phase == "train":
                self.metrics = self._evaluate()
                numbers |= self.metrics
            if self.setup.schedule.learns:
                self._curves(plan.phase)
        self.recorder.log(self.step, plan.phase, _place(plan.phase, self.progress), numbers)
        if evaluates and plan.phase == "train":
            self._note_best()
        self._guard(plan, bad, evaluates)

    def _evaluate(self) -> dict[str, float]:
        task = self.setup.task
        splits = {"valid": task.valid, "test": task.test}
        found = evaluate(self.setup.problem.model, self.state.inner, task, splits)
        values = torch.stack([value.double() for value in found.values()]).tolist()
        return dict(zip(found, values, strict=True))

    def _train_begins(self) -> None:
        """Evaluate the weights that training begins with: step 0 of the learning curve."""
        if self.setup.schedule.offline_total():
            # As the first step of training does: what the guard goes back to must have it too. The
            # outer state begins anew, with the η of training.
            inner = self.setup.advance.fresh("train", 0)
            self.state = self._state(inner, self.state.phi)
        self.ladder.phase_begins(self.state)
        self.metrics = self._evaluate()
        self.recorder.log(self.step, "train", 0, self.metrics)
        self._curves("train")
        self._note_best()

    def _curves(self, phase: str) -> None:
        self.recorder.curves(self.step, phase, self.setup.loss, self.state.phi)

    def _note_best(self) -> None:
        name = f"valid/{self.setup.task.metric_name}"
        value = self.metrics[name]
        best = self.best
        if best.metrics is not None:
            reference = best.metrics[name]
            better = value < reference if self.setup.task.goal == "min" else value > reference
            if not better:
                best.waited += 1
                return
        keeps = self.setup.schedule.early_stopping > 0
        self.best = Best(
            metrics=dict(self.metrics),
            step=self.progress.train,
            inner=self.state.inner if keeps else None,
        )

    def _stopped_early(self) -> bool:
        patience = self.setup.schedule.early_stopping
        return patience > 0 and self.best.waited >= patience

    @property
    def step(self) -> int:
        """The growing step: through all phases."""
        return self.setup.start_total + self.progress.offline + self.progress.train

    # --------------------------------------------------------------------------- the guard

    def _guard(self, plan: Plan, bad: int, evaluated: bool) -> None:
        config = self.setup.config
        if config.guard is GuardMode.off:
            return
        reason = f"{bad} bad steps since the last line" if bad else ""
        done = self.progress.train
        due = evaluated and plan.phase == "train" and self.ladder.is_due(done, config.steps)
        if not reason and due and self._dead():
            reason = f"no better than a constant prediction after {done} steps"
        if not reason:
            self.ladder.all_well(self.state)
            return
        if config.guard is GuardMode.raise_:
            raise DivergedError(f"step {self.step}: {reason} (guard=raise)")
        self._climb(plan, reason, self.ladder.good if bad else self.ladder.start)

    def _dead(self) -> bool:
        """Whether neither the metric nor the task loss beats a constant's on validation.

        Both, since the most frequent class can be the best answer to an imbalanced task, and a
        confident model can have a high task loss and few errors.
        """
        task = self.setup.task
        metric = self.metrics[f"valid/{task.metric_name}"]
        return learned_nothing(metric, self._constant, task.goal) and learned_nothing(
            self.metrics["valid/task_loss"], task.constant_loss
        )

    def _climb(self, plan: Plan, reason: str, back: Snapshot) -> None:
        setup = self.setup
        action = self.ladder.next_rung(phi_moves=setup.schedule.moves_in(plan.phase))
        # At the very end nothing that is restored could still be trained.
        if plan.phase == "train" and self.progress.train >= setup.config.steps:
            action = "give up"
        if action == "give up":
            self.ladder.diverged = True
        else:
            phi, outer = back.phi, back.outer
            shrink = None if self.state.outer is None else self.state.outer.shrink
            if action == "imitate":
                imitate = setup.start if isinstance(setup.start, Imitate) else Imitate()
                phi = imitate.fit(
                    setup.loss, setup.task.task_loss, setup.task.outputs, setup.config.seed
                )
                outer = setup.engine.outer_init(phi)
            if outer is not None and shrink is not None:
                outer = outer._replace(shrink=shrink * (0.1 if action == "restore" else 1.0))
            self.state = self._state(back.inner, phi)._replace(outer=outer)
            self.ladder.since = self.progress.train
            self.ladder.all_well(self.state)
        self.ladder.events.append({"step": self.step, "reason": reason, "action": action})
        what = {
            "restore": "restored the last good state, η cut tenfold",
            "imitate": "restarted the loss as an imitation of the task loss",
            "give up": "gave up: diverged",
        }[action]
        self.recorder.notice(self.step, f"guard: {reason}: {what}")

    # ------------------------------------------------------------------------- checkpoints

    def save(self) -> None:
        """Write a checkpoint of everything that the rest of the run depends on."""
        content = {
            "progress": [self.progress.offline, self.progress.train],
            "state": pack_state(self.state),
            "ladder": pack_ladder(self.ladder),
            "best": [self.best.metrics, self.best.step, self.best.waited],
            "best_inner": pack_tree(self.best.inner),
            "metrics": self.metrics,
            "train_seconds": self.train_seconds,
            "seconds": self.recorder.seconds(),
            "files": self.recorder.positions(),
        }
        checkpoint.save(self._folder / "checkpoints", self.step, content)

    def restore(self, content: dict[str, Any]) -> None:
        """Go back to a checkpoint."""
        self.progress = Progress(offline=content["progress"][0], train=content["progress"][1])
        template = self.state
        self.state = unpack_state(content["state"], template)
        self.ladder = unpack_ladder(content["ladder"], template, self.setup.schedule.learns)
        metrics, step, waited = content["best"]
        inner = unpack_tree(content["best_inner"], template.inner)
        self.best = Best(metrics=metrics, step=step, waited=waited, inner=inner)
        self.metrics = content["metrics"]
        self.train_seconds = content["train_seconds"]

    def _state(self, inner: InnerState, phi: Any) -> TrainState:
        device = self.setup.device
        learns = self.setup.schedule.learns
        return TrainState(
            inner,
            phi,
            self.setup.engine.outer_init(phi) if learns else None,
            None,
            GuardState.fresh(device),
            Meter.fresh(device),
        )


def _after(plan: Plan, progress: Progress) -> Progress:
    if plan.phase == "offline":
        return Progress(offline=progress.offline + 1, train=progress.train)
    return Progress(offline=progress.offline, train=progress.train + plan.unroll)


def _place(phase: str, progress: Progress) -> int:
    return progress.offline if phase == "offline" else progress.train


def _crossed(last: int, now: int, every: int) -> bool:
    return now // every > last // every
