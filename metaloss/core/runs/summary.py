"""The results of a run: ``run.summary`` and ``summary.json``."""

from __future__ import annotations

import math
import platform
import subprocess
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import metaloss
from metaloss.core.training.best import CURRENT
from metaloss.core.training.trainer import Trainer

_PACKAGES = ("torch", "torchvision", "torchopt", "higher", "hydra-core", "numpy", "scikit-learn")
_said: set[str] = set()


@dataclass(frozen=True, kw_only=True)
class Summary(Mapping[str, Any]):
    """The results of a finished run.

    Attributes:
        task: The name of the task; ``custom`` for a user's object. The next five entries follow
            the same rule.
        model: The name of the model.
        loss: The name of the loss.
        schedule: The name of the schedule.
        start: The name of the start.
        meta_optimizer: The name of the meta-optimizer.
        seed: The run's seed.
        steps: The number of training steps.
        seconds: The duration of the run, also over restarts; for a group, a share of it.
        train_seconds: The time of the training steps, without evaluations.
        compile: Whether the steps were compiled: ``on``, ``trace`` or ``off``.
        compile_seconds: The time for compiling.
        search: The results of a search; None without one.
        status: ``ok``, or ``diverged`` if the guard ended the run.
        guard_events: The actions of the guard, each with ``step``, ``reason`` and ``action``.
        warnings: The warnings when the run was resumed.
        goal: ``min`` or ``max``: whether a lower or a higher metric is better.
        metrics: The task's metric at the end, as ``valid/NAME`` and ``test/NAME``, then those of
            ``task.metrics``.
        metrics_at_best_validation: The same at the best validation metric, with its ``step``.
        metrics_of_a_constant: The same for the best constant prediction.
        learned_nothing: Whether the run is not better than a constant prediction.
        plugins: SHA-256 of the files given with ``--plugin``.
        rows: Digests of the training, validation and test rows.
        versions: Versions of metaloss, Python and the main libraries.
        commit: The git commit of metaloss; None if it is installed without git.
        device: The device of the training.
        processes: The number of processes of the training.
        ended_with: The ``step`` of the weights that the run ended with; which ``weights``:
            ``current``, or ``average`` (with ``ema``); the ``rows`` that have chosen, with their
            number; and the ``verdict`` that has changed the run, if any. None without ``ema`` and
            ``schedule.jury``.
    """

    task: str
    model: str
    loss: str
    schedule: str
    start: str
    meta_optimizer: str
    seed: int
    steps: int
    seconds: float
    train_seconds: float
    compile: str
    compile_seconds: float
    search: dict[str, Any] | None = None
    status: str
    guard_events: list[dict[str, Any]]
    warnings: list[str]
    goal: str
    metrics: dict[str, float]
    metrics_at_best_validation: dict[str, Any]
    metrics_of_a_constant: dict[str, float]
    learned_nothing: bool
    plugins: dict[str, str]
    rows: dict[str, str]
    versions: dict[str, str]
    commit: str | None
    device: str
    processes: int = 1
    ended_with: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the content of ``summary.json``, without entries that do not apply to this run."""
        every = {field.name: getattr(self, field.name) for field in fields(self)}
        left_out = {"search": None, "processes": 1, "ended_with": None}
        return {name: v for name, v in every.items() if name not in left_out or v != left_out[name]}

    def __getitem__(self, name: str) -> Any:
        _say_once(name)
        return self.as_dict()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.as_dict())

    def __len__(self) -> int:
        return len(self.as_dict())


def _say_once(name: str) -> None:
    if name not in _said:
        _said.add(name)
        message = f"run.summary[{name!r}] is now run.summary.{name}; the old form works until 0.3"
        warnings.warn_explicit(message, FutureWarning, "metaloss", 0)


def summarize(trainer: Trainer, seconds: float, plugins: dict[str, str]) -> Summary:
    """Return the summary of a finished run."""
    setup, config = trainer.setup, trainer.setup.config
    metric, best = setup.task.metric_name, trainer.best
    at_best: dict[str, Any] = {}
    if best.metrics is not None:
        at_best = {**_of(best.metrics, metric), "step": best.step}
        at_best |= {"weights": best.weights} if _chooses(trainer) else {}
    constants = trainer.recovery.constants
    return Summary(
        task=config.task.name,
        model=config.model.name,
        loss=config.loss.name,
        schedule=config.schedule.name,
        start=config.start.name,
        meta_optimizer=config.meta_optimizer.name,
        seed=config.seed,
        steps=trainer.progress.train,
        seconds=round(seconds, 3),
        train_seconds=round(trainer.train_seconds, 3),
        compile=config.compile.value,
        compile_seconds=round(trainer.compile_seconds, 3),
        search=setup.found or None,
        status="diverged" if trainer.ladder.diverged else "ok",
        guard_events=trainer.ladder.events,
        warnings=trainer.recorder.warnings,
        goal=setup.task.goal,
        metrics=_of(trainer.metrics, metric) | trainer.further_metrics(),
        metrics_at_best_validation=at_best,
        metrics_of_a_constant={n: v for n, v in constants.items() if math.isfinite(v)},
        learned_nothing=trainer.recovery.chance,
        plugins=plugins,
        rows=trainer.made["rows"],
        versions={
            "metaloss": metaloss.__version__,
            "python": platform.python_version(),
            **{package: version(package) for package in _PACKAGES},
        },
        commit=commit(),
        device=str(setup.device),
        processes=setup.ranks.size,
        ended_with=_ended(trainer) if _chooses(trainer) else None,
    )


def ended_with(trainer: Trainer) -> tuple[int, str]:
    """Return the moment whose weights ``model.safetensors`` is said to have."""
    return trainer.ended if _chooses(trainer) else (trainer.progress.train, CURRENT)


def _chooses(trainer: Trainer) -> bool:
    return trainer.setup.config.ema > 0 or trainer.setup.task.jury is not None


def _ended(trainer: Trainer) -> dict[str, Any]:
    step, weights = trainer.ended
    jury = trainer.setup.task.jury
    return {
        "step": step,
        "weights": weights,
        **({"rows": f"jury of {len(jury.targets)}"} if jury else {}),
        **({"verdict": done} if (done := trainer.jury.done) else {}),
    }


@cache
def commit() -> str | None:
    """Return the git commit of metaloss when first asked; None if it is installed without git."""
    folder = Path(metaloss.__file__).parent
    try:
        found = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    tracked = found.returncode == 0 and "site-packages" not in folder.parts
    return found.stdout.strip() if tracked else None


def _of(metrics: dict[str, float], metric: str) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name.endswith(f"/{metric}")}
