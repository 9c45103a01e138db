"""The training loop of a single run, or of many runs in one vectorised program."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from metaloss.contracts import Plan
from metaloss.core.steps.stacked import together
from metaloss.core.training.interrupt import Interrupt
from metaloss.core.training.trainer import Trainer


def train(trainers: Sequence[Trainer], interrupt: Interrupt, folder: Path) -> None:
    """Train runs that are at the same step to the end.

    If a run ends early, the others continue. ``folder`` is that of the run or group.

    Raises:
        KeyboardInterrupt: After Ctrl-C. Every run has written a checkpoint before.
    """
    live = _unfinished(trainers)
    if live:
        live[0].say_what_takes_long()
    while live:
        count = len(live)
        advance = together([one.setup.advance for one in live])
        states = advance.joined([one.state for one in live])
        while len(live) == count and (plan := _next_plan(live)) is not None:
            records = count > 1 and bool(live[0].recording.due(plan, live[0].progress))
            for index, one in enumerate(live if records else ()):
                one.state = advance.member(states, index)
            began, compiled = time.perf_counter(), advance.compile_seconds
            states = advance(states, plan, live[0].progress)
            compiled = (advance.compile_seconds - compiled) / count
            seconds = (time.perf_counter() - began) / count - compiled
            due = live[0].is_due(plan)
            # Views of each run's values take time, so they are made only if they are used.
            looks = due or count == 1 or records
            for index, one in enumerate(live):
                state = advance.member(states, index) if looks else one.state
                one.took(plan, state, seconds, compiled)
            if due:
                before, live = live, _unfinished(live)
                for one in before if count > 1 else ():
                    if one not in live:
                        one.save()  # the others go on: a stopped group finds its end here
            if (due or count == 1) and len(live) == count:
                states = advance.joined([one.state for one in live])
            if interrupt.heard():
                if not looks:
                    for index, one in enumerate(live):
                        one.state = advance.member(states, index)
                for one in trainers:
                    one.save()
                interrupt.check(
                    f"a checkpoint was written; continue with metaloss train --resume {folder}"
                )
        live = _unfinished(live)
    for one in trainers:
        one.end()


def _next_plan(live: Sequence[Trainer]) -> Plan | None:
    """Return the plan of all runs: without a meta-step if no φ moves any more."""
    plan = live[0].next_plan()
    if plan is None or not all(one.jury.frozen for one in live):
        return plan
    return replace(plan, meta_step=False)


def _unfinished(trainers: Sequence[Trainer]) -> list[Trainer]:
    return [one for one in trainers if one.next_plan() is not None]
