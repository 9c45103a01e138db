"""The contract of a schedule: pure plans, and an exact number of steps."""

from __future__ import annotations

from collections.abc import Iterator

from metaloss.contracts import MetaBatch, Plan, Progress, Schedule, TrainOn
from metaloss.testing.base import Checks, nothing_changes, require

BUDGETS = (1, 2, 7, 40, 101)


class ScheduleChecks(Checks):
    """Checks of a schedule; ``make`` returns it.

    Example:
        >>> from metaloss.schedules import Online
        >>> class TestOnline(ScheduleChecks):
        ...     def make(self):
        ...         return Online(unroll=3)
        >>> TestOnline().test_the_budget_is_exact()
    """

    def test_the_budget_is_exact(self) -> None:
        """A run takes exactly ``steps`` training steps and ``offline_total()`` meta-steps."""
        schedule = self.made()
        for steps in BUDGETS:
            end = schedule.begins
            for before, plan in _plans(schedule, steps):
                end = before.after(plan)
            expected = Progress(offline=schedule.offline_total(), train=steps)
            require(end == expected, f"a run of {steps} steps ends at {end}, not at {expected}")

    def test_plans_are_well_formed(self) -> None:
        """Phases are valid and in order, unrolls ≥ 1, and meta-steps agree with ``moves_in``."""
        schedule = self.made()
        moves: set[str] = set()
        for steps in BUDGETS:
            phases = []
            for _, plan in _plans(schedule, steps):
                require(plan.phase in ("offline", "train"), f"unknown phase {plan.phase!r}")
                require(plan.unroll >= 1, f"an unroll of {plan.unroll}")
                may = not plan.meta_step or schedule.moves_in(plan.phase)
                require(may, f"a meta-step in {plan.phase!r}, but moves_in says that φ is fixed")
                moves |= {plan.phase} if plan.meta_step else set()
                phases.append(plan.phase)
            require(phases == sorted(phases), "an offline meta-step comes after training began")
        require(
            schedule.learns == bool(moves),
            f"learns={schedule.learns}, but phases with meta-steps: {moves}",
        )

    def test_training_begins_fresh_after_offline_steps(self) -> None:
        """Offline meta-steps, and the first training step after them, begin with new weights."""
        schedule = self.made()
        if not schedule.offline_total():
            return
        for before, plan in _plans(schedule, BUDGETS[-1]):
            if plan.phase == "offline" or before.train == 0:
                require(plan.reset, f"θ is not reset at {before}")
            else:
                require(not plan.reset, f"θ is reset in the middle of training, at {before}")

    def test_plans_depend_on_progress_alone(self) -> None:
        """An equal schedule gives the same plans, in any order, as a resumed run needs."""
        schedule, other = self.made(), self.made()
        with nothing_changes("plan()"):
            told = list(_plans(schedule, BUDGETS[-1]))
            for before, plan in reversed(told):
                again = other.plan(before, BUDGETS[-1])
                require(again == plan, f"at {before} the plan is {plan} once and {again} later")

    def test_choices_are_of_the_right_kind(self) -> None:
        """``meta_batch``, ``train_on``, ``jury``, ``judged`` and ``early_stopping`` are valid."""
        schedule = self.made()
        require(isinstance(schedule.meta_batch, MetaBatch), "meta_batch is not a MetaBatch")
        require(isinstance(schedule.train_on, TrainOn), "train_on is not a TrainOn")
        require(0 <= schedule.jury < 1, f"jury={schedule.jury} is not in [0, 1)")
        for unroll in BUDGETS:
            found = list(schedule.judged(unroll))
            within = all(1 <= k < unroll and weight > 0 for k, weight in found)
            require(within, f"judged({unroll}) is {found}: expected places from 1 to {unroll - 1}")
        stopping = schedule.early_stopping
        require(isinstance(stopping, int) and stopping >= 0, f"early_stopping={stopping}")


def _plans(schedule: Schedule, steps: int) -> Iterator[tuple[Progress, Plan]]:
    """Yield the progress before each plan, and the plan."""
    progress = schedule.begins
    for _ in range(steps + schedule.offline_total() + 1):
        plan = schedule.plan(progress, steps)
        if plan is None:
            return
        yield progress, plan
        progress = progress.after(plan)
    raise AssertionError(f"a run of {steps} steps does not end: it is at {progress}")
