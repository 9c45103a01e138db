"""``metaloss advise``: a study made from one task, and a paragraph that says which method to use.

Compute is equal by steps. A step with a meta-step costs about three plain ones (Kemaev et al.,
arXiv 2505.00793), so with S steps of the learned loss every method has

- for tuning, 6 S plain steps a seed: two rates for the learned loss; for all others four settings,
  one of them with 3 S steps and three rates with S steps;
- for the result, at most 3 S plain steps a seed.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from metaloss import registry
from metaloss.compose import compose, refuse_unused
from metaloss.config import RunConfig
from metaloss.contracts import Task
from metaloss.core.storage.files import write_atomically
from metaloss.errors import MetalossError
from metaloss.options import unused
from metaloss.study.compare import compare
from metaloss.study.launch.launch import Train
from metaloss.study.outputs import say_written
from metaloss.study.spec.options import Options, split_launcher
from metaloss.study.spec.spec import Row, Study
from metaloss.study.spec.study_file import parse_seeds
from metaloss.study.tables import advice as advices
from metaloss.study.tables import advice_text
from metaloss.study.tables.advice import Advice
from metaloss.tracking.quiet_console import QuietConsole
from metaloss.types import Link

SEEDS = "0-9"
# Each tuning seed holds out another part of the trusted rows; four in a row hold out each row once.
TUNING_SEEDS = (100, 101, 102, 103)
# Plain steps that a step of the learned loss costs.
COST = 3
# Classes count as rare if the largest one has so many times the rows of the smallest.
_RARE = 3.0
# Evaluations in a training run; early stopping waits for five of them.
_EVALUATIONS = 20

_SET_HERE = ("schedule", "loss", "start", "meta_optimizer", "preset", "paper")
_LEARNED = ("schedule=online", "loss=mlp")
_TRUSTED_TOO = "schedule.train_on=train+validation"


@dataclass(frozen=True, kw_only=True)
class Result:
    """The advice, the paragraph and the folder of `advise`."""

    advice: Advice
    paragraph: str
    out: Path


def advise(
    words: Sequence[str],
    out: Path,
    *,
    seeds: str = SEEDS,
    options: Options | None = None,
    train: Train | None = None,
    console: Console | None = None,
) -> Result:
    """Train the usual methods and the learned loss on one task, and say which to use.

    Args:
        words: ``KEY=VALUE`` words for task, model, inner optimizer and settings. ``inner.lr`` and
            ``steps`` are those from which the settings of all methods are made.
        out: The folder of the runs, tables and pictures, with ``advice.json`` and ``advice.md``.
            After Ctrl-C the same call continues.
        seeds: Seeds of the results, such as ``0-9``; six or more for a test.
        options: How to train; only ``jobs``, ``threads``, ``arguments`` and ``executor`` are used.
        train: Trains one run; default: as in `compare`.
        console: The console for output.

    Raises:
        MetalossError: For invalid words, a task without test rows, or failed runs.
        KeyboardInterrupt: After Ctrl-C.
    """
    console = console or QuietConsole()
    executor, own = split_launcher(words)
    options = options or Options()
    options = replace(options, executor=executor or options.executor)
    _check_words(own)
    config = compose([*own, "tracker=[]"])
    refuse_unused(config, own)  # metaloss train would refuse them in the command at the end
    task = _built(config)
    study = study_of(config, task, own, seeds)
    console.print(str(task), markup=False, highlight=False, soft_wrap=True)
    console.print(_plan(study, config), markup=False, highlight=False, soft_wrap=True)
    found = compare(study, out, options=options, train=train, console=console)
    learned = [row.name for row in study.rows if "schedule=static" not in row.overrides]
    scores = [one for some in found.scores.values() for one in some]
    advice = advices.advise(found.table, scores, learned)
    text = advice_text.paragraph(advice, notes=_notes(task))
    command = _command(study, advice)
    more = {
        "task": task.name,
        "rows": {part: len(getattr(task, part).targets) for part in ("train", "valid", "test")},
        "seeds": study.seeds,
        "steps": config.steps,
        "command": command,
    }
    files = {
        out / "advice.json": advices.to_json(advice, text, more),
        out / "advice.md": f"{text}\n\n```sh\n{command}\n```\n",
    }
    for path, content in files.items():
        write_atomically(path, content.encode())
    say_written(list(files), console)
    console.print()
    console.print(text, markup=False, highlight=False)
    console.print()
    console.print(command, markup=False, highlight=False, soft_wrap=True)
    return Result(advice=advice, paragraph=text, out=out)


def study_of(config: RunConfig, task: Task, words: Sequence[str], seeds: str) -> Study:
    """Return the methods to compare for a task, each with its settings.

    Args:
        config: The composed words.
        task: The task.
        words: The words of all rows.
        seeds: Seeds of the results.
    """
    set_by_user = {word.partition("=")[0] for word in words}
    more = ["task.split_seed=0", f"eval_every={max(1, config.steps // _EVALUATIONS)}"]
    common = (*words, *(word for word in more if word.partition("=")[0] not in set_by_user))
    plain, losses = _losses(task)
    fixed = {plain: ("loss=scaled", "start=keep"), **losses}
    rows = {
        plain: fixed[plain],
        f"{plain}, early stopping": (*fixed[plain], "schedule.early_stopping=5"),
        **losses,
        "trusted rows alone": (*fixed[plain], "schedule.train_on=validation"),
        **{
            f"{name} + trusted rows": (*chosen, _TRUSTED_TOO)
            for name, chosen in fixed.items()
            if name != "label smoothing"
        },
    }
    learned = {
        "learned loss": _LEARNED,
        "learned loss + trusted rows": (*_LEARNED, _TRUSTED_TOO),
    }
    if task.link is Link.softmax and task.train.targets.dim() == 1:
        learned["learned targets + trusted rows"] = ("+preset=auto",)
    several, few = _settings(config)
    every = parse_seeds(seeds)
    return Study(
        rows=(
            *(
                Row(name=name, overrides=("schedule=static", *chosen), tune=several)
                for name, chosen in rows.items()
            ),
            *(Row(name=name, overrides=chosen, tune=few) for name, chosen in learned.items()),
        ),
        seeds=every,
        common=common,
        reference=plain,
        description=f"advice for {task.name}",
        together=max(len(every), len(TUNING_SEEDS)),
        tuning_seeds=TUNING_SEEDS,
        folds=len(TUNING_SEEDS),
        equal="steps",
    )


def _losses(task: Task) -> tuple[str, dict[str, tuple[str, ...]]]:
    """Return the name of plain training, and the words of the other fixed losses that fit."""
    if task.link is Link.identity:
        return "squared error", {"absolute error": ("loss=mae",)}
    if task.link is Link.sigmoid:
        return "binary cross-entropy", {}
    losses: dict[str, tuple[str, ...]] = {
        "label smoothing": ("loss=label_smoothing",),
        "generalised cross-entropy": ("loss=gce",),
    }
    targets = task.train.targets
    if not targets.is_floating_point():
        counts = torch.bincount(targets[targets != task.ignore_index], minlength=task.outputs)
        if int(counts.max()) > _RARE * int(counts.min()):
            losses["logit adjustment"] = ("loss=logit_adjusted",)
    return "cross-entropy", losses


def _settings(config: RunConfig) -> tuple[tuple[tuple[str, ...], ...], ...]:
    """Return the settings of methods with a fixed loss, and of those with a learned one."""
    inner, steps = config.inner.options, config.steps

    def rate(factor: float) -> str:
        return f"inner.lr={inner.lr * factor:.3g}"

    # The rate falls over the whole of a longer training too.
    longer = {
        "period": COST * inner.period,
        "step_size": COST * inner.step_size,
        "milestones": [COST * mark for mark in inner.milestones],
    }
    idle = unused(inner)
    stretched = [f"inner.{name}={value}" for name, value in longer.items() if name not in idle]
    same = f"steps={steps}"
    several = (
        (rate(1), same),
        (rate(1 / 3), same),
        (rate(3), same),
        (rate(1), f"steps={COST * steps}", *stretched),
    )
    return several, ((rate(1), same), (rate(3), same))


def _check_words(words: Sequence[str]) -> None:
    for word in words:
        key = word.lstrip("+~").partition("=")[0]
        if key.partition(".")[0] in _SET_HERE:
            raise MetalossError(
                f"{word!r}: advise chooses {', '.join(_SET_HERE)} itself; expected words for task, "
                "model, inner and settings such as steps"
            )
        if key in ("seed", "seeds", "output"):
            raise MetalossError(f"{word!r}: expected --seeds and --out instead")


def _built(config: RunConfig) -> Task:
    """Return the task.

    Raises:
        MetalossError: If it cannot hold out trusted rows, or has no test rows.
    """
    options: Any = config.task.options
    if not hasattr(options, "folds"):
        raise MetalossError(
            f"task={config.task.name}: advise holds out trusted rows to choose a method, which "
            "this task cannot (it has no option task.folds)"
        )
    if options.folds:
        raise MetalossError("task.folds: advise sets it itself; expected no such word")
    seed = 0 if options.split_seed is None else options.split_seed
    task: Task = registry.get("task", config.task.name).build(options).build(seed)
    if task.test is task.valid:
        raise MetalossError(f"task={config.task.name}: expected test rows, which report")
    return task


def _plan(study: Study, config: RunConfig) -> str:
    methods, tuning, seeds = len(study.rows), len(study.tuning_seeds), len(study.seeds)
    settings = sum(len(row.tune) for row in study.rows)
    # The settings of a method cost as much as the two of the learned loss.
    units = methods * COST * (2 * tuning + seeds)
    return (
        f"methods: {methods}; {settings * tuning} runs choose their settings, {methods * seeds} "
        f"runs give the results; together they cost at most {units} plain trainings of "
        f"{config.steps} steps"
    )


def _notes(task: Task) -> list[str]:
    """Return what limits the advice, in sentences."""
    drawn = [
        name
        for part, name in (("valid", "trusted rows"), ("test", "test rows"))
        if "drawn from" in task.origins.get(part, "")
    ]
    if not drawn:
        return []
    return [
        f"The {' and '.join(drawn)} are drawn from the same file as the training rows: if labels "
        "there are wrong, so are some of theirs, and you need checked rows in files of their own."
    ]


def _command(study: Study, advice: Advice) -> str:
    row = next(row for row in study.rows if row.name == advice.use)
    given = study.overrides(row.with_words(advice.words), study.seeds[0])
    left_out = ("tracker=", "seed=", "task.split_seed=0")
    return shlex.join(
        ["metaloss", "train", *(word for word in given if not word.startswith(left_out))]
    )
