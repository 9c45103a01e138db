"""Begins new runs: one, or one for each of many seeds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import nn

from metaloss.config import RunConfig
from metaloss.contracts import Task
from metaloss.core.distributed.launch import joined, refuse_several
from metaloss.core.parts.blame import told
from metaloss.core.parts.budget import within_budget
from metaloss.core.parts.custom import with_custom
from metaloss.core.parts.setup import Setup, prepare
from metaloss.core.runs.members import Member, go, trackers_of
from metaloss.core.runs.opening import check_empty, claimed, default_folder
from metaloss.core.runs.process_checks import check_processes
from metaloss.core.runs.results import Run
from metaloss.core.runs.stackable import check_together
from metaloss.core.training.interrupt import Interrupt
from metaloss.core.training.made_of import made_of
from metaloss.losses.base import LearnedLoss


def begin_runs(
    config: RunConfig,
    *,
    task: Task | None = None,
    model: nn.Module | None = None,
    loss: LearnedLoss | None = None,
    plugins: Mapping[str, str] | None = None,
    beside: Collection[str] = (),
    begins: Callable[[Setup], None] | None = None,
) -> list[Run]:
    """Train the new runs of a config; see :func:`metaloss.core.runs.passes.train_runs`.

    ``beside``: names that the folder of a run may already have. ``begins``: called in every process
    with the first run, before its first file is written; it may refuse the run.
    """
    config = with_custom(config, task, model, loss)
    seeds = range(config.seed, config.seed + config.seeds)
    many = len(seeds) > 1
    if many:
        refuse_several(f"seeds={len(seeds)}", "train the seeds one at a time, or in one process")

    def folders(output: Path) -> list[Path]:
        return [output / f"seed{seed}" for seed in seeds] if many else [output]

    with joined(config.device) as ranks, told():
        if ranks.leads and config.output:
            for folder in folders(Path(config.output)):
                check_empty(folder, beside)  # before the rows are read
        build = partial(prepare, task=task, model=model, loss=loss, ranks=ranks)
        config, said = within_budget(config, build)
        setups = [build(replace(config, seed=seed)) for seed in seeds]
        check_together(setups)
        name, first = setups[0].task.name, setups[0].config
        output = Path(config.output or default_folder(first, name, len(setups)))
        fanouts = trackers_of(setups[0].config, len(setups), ranks)
        check_processes(setups[0])
        output = ranks.same(output)
        if begins is not None:
            begins(setups[0])
        with ExitStack() as held:
            for folder in folders(output):
                held.enter_context(claimed(folder, ranks, beside))
            interrupt = held.enter_context(Interrupt(ranks.any))
            group = {"group": [config.seed, config.seeds]} if many else {}
            members = [
                Member(
                    setup=setup,
                    folder=folder,
                    fanout=fanout,
                    made={**made_of(setup), **group},
                    new=True,
                    said=said,
                )
                for setup, folder, fanout in zip(setups, folders(output), fanouts, strict=True)
            ]
            return go(members, interrupt, plugins, output if many else None)
