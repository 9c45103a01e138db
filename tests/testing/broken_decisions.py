"""Schedules and starts that each break one rule."""

import random
from dataclasses import replace

import torch

from metaloss.contracts import MetaBatch, Plan
from metaloss.schedules import Offline, Online, Static
from metaloss.starts import Keep
from metaloss.testing import ScheduleChecks, StartChecks

from .specimens import specimen


@specimen(ScheduleChecks, "test_the_budget_is_exact", "ends at")
class Overshooting(Static):
    def plan(self, progress, steps):
        return None if progress.train >= steps else Plan(phase="train", unroll=5)


@specimen(ScheduleChecks, "test_the_budget_is_exact", "does not end")
class Endless(Static):
    def plan(self, progress, steps):
        return Plan(phase="train")


@specimen(ScheduleChecks, "test_plans_are_well_formed", "moves_in says")
class Secret(Static):
    def plan(self, progress, steps):
        plan = super().plan(progress, steps)
        return plan and replace(plan, meta_step=True)


@specimen(ScheduleChecks, "test_plans_are_well_formed", "learns=True")
class Idle(Static):
    def moves_in(self, phase):
        return True


@specimen(ScheduleChecks, "test_plans_are_well_formed", "after training began")
class Backwards(Offline):
    def plan(self, progress, steps):
        if progress.train < steps:
            return Plan(phase="train")
        return super().plan(progress, steps)


@specimen(ScheduleChecks, "test_training_begins_fresh_after_offline_steps", "not reset")
class Stale(Offline):
    def plan(self, progress, steps):
        plan = super().plan(progress, steps)
        return plan and replace(plan, reset=plan.phase == "offline")


@specimen(ScheduleChecks, "test_plans_depend_on_progress_alone", "global random state")
class Rolling(Online):
    def plan(self, progress, steps):
        random.random()
        return super().plan(progress, steps)


@specimen(ScheduleChecks, "test_plans_depend_on_progress_alone", "the plan is")
def counting():
    calls = []

    class Counting(Online):
        def plan(self, progress, steps):
            calls.append(progress)
            plan = super().plan(progress, steps)
            return plan and replace(plan, meta_step=len(calls) < 50)

    return Counting()


@specimen(ScheduleChecks, "test_choices_are_of_the_right_kind", "places from 1 to")
class JudgedAtItsEnd(Online):
    def judged(self, unroll):
        return [(unroll, 1.0)]


@specimen(ScheduleChecks, "test_choices_are_of_the_right_kind", "not a MetaBatch")
class Wordy(Static):
    meta_batch: MetaBatch = "validation"


@specimen(StartChecks, "test_phi_fits_the_loss", "names")
class Renaming(Keep):
    def begin(self, *arguments):
        return {f"phi.{name}": value for name, value in super().begin(*arguments).items()}


@specimen(StartChecks, "test_phi_fits_the_loss", "not detached")
class Attached(Keep):
    def begin(self, loss, *rest):
        return {name: value * 1 for name, value in loss.named_parameters()}


@specimen(StartChecks, "test_nothing_changes", "in place")
class Sharing(Keep):
    def begin(self, loss, *rest):
        return {name: value.detach() for name, value in loss.named_parameters()}


@specimen(StartChecks, "test_nothing_changes", "global random state")
class Drawing(Keep):
    def begin(self, *arguments):
        return {k: torch.randn_like(v) for k, v in super().begin(*arguments).items()}


@specimen(StartChecks, "test_reports_count_up_to_the_total", "total=0")
class Untold(Keep):
    def begin(self, loss, task_loss, outputs, seed, report=None):
        if report:
            report(1, {})
        return super().begin(loss, task_loss, outputs, seed)


@specimen(StartChecks, "test_a_loss_without_parameters_has_no_phi", "")
class Demanding(Keep):
    def begin(self, *arguments):
        phi = super().begin(*arguments)
        next(iter(phi.values()))
        return phi
