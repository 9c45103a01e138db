"""Trains runs: ``metaloss train`` and ``metaloss.train``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from metaloss.compose import compose, refuse_unused, to_overrides
from metaloss.config import RunConfig
from metaloss.contracts import Task
from metaloss.core.parts.custom import refuse_words_for_objects
from metaloss.core.runs.passes import resume_passes, train_runs
from metaloss.core.runs.results import Run
from metaloss.core.storage.run_folder import is_group
from metaloss.errors import MetalossError
from metaloss.losses.base import LearnedLoss


def train(
    config: Mapping[str, Any] | Sequence[str] = (),
    *,
    task: Task | None = None,
    model: nn.Module | None = None,
    loss: LearnedLoss | None = None,
) -> Run | Any:  # a list for many seeds, whose attributes a union would refuse
    """Train a model and learn its loss, as ``metaloss train`` does.

    With ``seeds=N`` this trains N runs that differ only in their seed, in one vectorised program.
    Each has the same results as alone, up to rounding, and its own folder: ``output/seed0``,
    ``output/seed1`` and so on, beginning with ``seed``.

    Args:
        config: The arguments of the command line (``["schedule=online", "inner.lr=0.1"]``), or a
            mapping of the same keys (``{"schedule": "online", "inner.lr": 0.1}``).
        task: Your own data, from :func:`metaloss.task_from_data`, instead of a registered task.
        model: Your own module; training begins with its current weights. It is not changed; the
            result has the trained copy.
        loss: Your own loss instead of a registered one. It is not changed either.

    Returns:
        The finished :class:`metaloss.Run`; with ``seeds=N``, N > 1, a list of N.

    Raises:
        MetalossError: If an option is invalid or parts do not fit. Then nothing is written.
        UnsupportedError: If the parts cannot be vectorised over seeds.

    Example:
        >>> import tempfile
        >>> words = ["steps=5", "start.steps=5", "tracker=[]"]
        >>> run = train([*words, f"output={tempfile.mkdtemp()}"])
        >>> run.summary.status, sorted(run.summary.metrics)
        ('ok', ['test/error', 'valid/error'])
        >>> runs = train([*words, "seeds=2", f"output={tempfile.mkdtemp()}"])
        >>> [(run.folder.name, run.summary.seed) for run in runs]
        [('seed0', 0), ('seed1', 1)]
    """
    runs = train_seeds(config, task=task, model=model, loss=loss)
    return runs if len(runs) > 1 else runs[0]


def train_seeds(
    config: Mapping[str, Any] | Sequence[str] = (),
    *,
    task: Task | None = None,
    model: nn.Module | None = None,
    loss: LearnedLoss | None = None,
) -> list[Run]:
    """Do the same as :func:`train`, but return a list for a single run too."""
    words = to_overrides(config) if isinstance(config, Mapping) else list(config)
    composed = compose(words)
    refuse_words_for_objects(composed, task, model, loss)
    refuse_unused(composed, words)
    return train_runs(composed, task=task, model=model, loss=loss)


def train_run(config: RunConfig, *, plugins: Mapping[str, str] | None = None) -> Run:
    """Train the single run of a config, which names all of its parts; see :func:`train_runs`.

    Raises:
        MetalossError: Also if the config has several seeds.
    """
    if config.seeds > 1:
        raise MetalossError(f"seeds={config.seeds}: expected seeds=1 for a single run")
    (run,) = train_runs(config, plugins=plugins)
    return run


def resume_run(
    folder: str | Path,
    *,
    steps: int | None = None,
    tracker: Mapping[str, Any] | None = None,
    device: str | None = None,
    plugins: Mapping[str, str] | None = None,
    task: Task | None = None,
    model: nn.Module | None = None,
    loss: LearnedLoss | None = None,
) -> Run | Any:  # a list for many seeds, whose attributes a union would refuse
    """Resume a run from its newest checkpoint, with the same results as without a stop.

    The runs of a group (``seeds=N``) are resumed together, from the last step with a checkpoint of
    every run. If there is none, they begin again.

    Args:
        folder: The folder of the run, or of a group with ``seed0``, ``seed1`` and so on.
        steps: Another number of training steps.
        tracker: Other trackers, their options by name.
        device: Another device.
        plugins: SHA-256 by file name, for the summary.
        task: Your own task, if the run was made with one.
        model: Your own model, likewise.
        loss: Your own loss, likewise.

    Returns:
        The finished run; for a group, a list of the runs that were not finished before.

    Raises:
        MetalossError: If the folder has no run, the run is finished already, or there is no
            checkpoint.
    """
    if not isinstance(tracker, Mapping | None):
        raise MetalossError(
            f"tracker is a {type(tracker).__name__}: expected options by the names of trackers; "
            "{} for none"
        )
    changes = {"steps": steps, "tracker": tracker, "device": device}
    runs = resume_passes(folder, changes, plugins=plugins, task=task, model=model, loss=loss)
    return runs if is_group(Path(folder)) else runs[0]


def resume_group(
    folder: str | Path,
    *,
    plugins: Mapping[str, str] | None = None,
    task: Task | None = None,
    model: nn.Module | None = None,
    loss: LearnedLoss | None = None,
) -> list[Run]:
    """Do the same as :func:`resume_run`, but return a list for a single run too."""
    return resume_passes(folder, {}, plugins=plugins, task=task, model=model, loss=loss)
