"""What a run leaves behind in ``summary.json``."""

from __future__ import annotations

import math
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import metaloss
from metaloss.core.training.trainer import Trainer

_PACKAGES = ("torch", "torchvision", "torchopt", "higher", "hydra-core", "numpy", "scikit-learn")


def summarize(trainer: Trainer, seconds: float, plugins: dict[str, str]) -> dict[str, Any]:
    """Return the summary of a finished run: plain values."""
    setup, config = trainer.setup, trainer.setup.config
    names = ("task", "model", "loss", "schedule", "start", "meta_optimizer")
    metric = setup.task.metric_name
    best = trainer.best
    at_best: dict[str, Any] = {}
    if best.metrics is not None:
        at_best = {**_of(best.metrics, metric), "step": best.step}
    return {
        **{name: getattr(config, name).name for name in names},
        "seed": config.seed,
        "steps": trainer.progress.train,
        "seconds": round(seconds, 3),
        "train_seconds": round(trainer.train_seconds, 3),
        "compile": config.compile.value,
        "compile_seconds": round(trainer.compile_seconds, 3),
        **({"search": setup.found} if setup.found else {}),
        "status": "diverged" if trainer.ladder.diverged else "ok",
        "guard_events": trainer.ladder.events,
        "warnings": trainer.recorder.warnings,
        "goal": setup.task.goal,
        "metrics": _of(trainer.metrics, metric),
        "metrics_at_best_validation": at_best,
        "metrics_of_a_constant": {
            name: value
            for name, value in trainer.recovery.constants.items()
            if math.isfinite(value)
        },
        "learned_nothing": trainer.recovery.chance,
        "plugins": plugins,
        "rows": trainer.made["rows"],
        "versions": {
            "metaloss": metaloss.__version__,
            "python": platform.python_version(),
            **{package: version(package) for package in _PACKAGES},
        },
        "commit": commit(),
        "device": str(setup.device),
        **({"processes": setup.ranks.size} if setup.ranks.size > 1 else {}),
    }


def commit() -> str | None:
    """Return the commit of the checkout that metaloss runs from, None outside of one."""
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
