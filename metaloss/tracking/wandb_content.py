"""What the tracker ``wandb`` shows of a run: names, the summary, the artifact, the report."""

from __future__ import annotations

import importlib
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metaloss.contracts import RunFinished

_PARTS = ("task", "model", "loss", "schedule")
_PROVENANCE = (*_PARTS, "seed", "steps", "status", "metrics", "versions")
# How W&B's summary calls the numbers that `summary.json` has in objects.
_FLAT = {
    "metrics": "final",
    "metrics_at_best_validation": "best",
    "metrics_of_a_constant": "constant",
}


def named(phase: str, name: str) -> str:
    """Return the name of a number in W&B: every name belongs to one phase.

    Example:
        >>> named("train", "meta/task_loss"), named("offline", "meta/task_loss")
        ('meta/task_loss', 'offline/meta/task_loss')
        >>> named("start", "start/misfit")
        'start/misfit'
    """
    return name if phase == "train" or name.startswith(f"{phase}/") else f"{phase}/{name}"


def parts_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the names of a run's task, model, loss and schedule.

    Example:
        >>> parts_of({"task": {"name": "digits"}, "loss": "mlp", "steps": 5})
        {'task': 'digits', 'loss': 'mlp'}
    """
    found = {}
    for part in _PARTS:
        chosen = config.get(part)
        name = chosen.get("name") if isinstance(chosen, Mapping) else chosen
        if isinstance(name, str):
            found[part] = name
    return found


def flat_summary(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of ``summary.json`` with the metrics flat.

    Example:
        >>> flat_summary({"status": "ok", "metrics": {"test/error": 0.25}})
        {'status': 'ok', 'final/test/error': 0.25}
    """
    flat: dict[str, Any] = {}
    for name, value in summary.items():
        if name in _FLAT and isinstance(value, Mapping):
            flat |= {f"{_FLAT[name]}/{metric}": number for metric, number in value.items()}
        else:
            flat[name] = value
    return flat


def add_artifact(run: Any, event: RunFinished, config: Mapping[str, Any], *, model: bool) -> None:
    """Log the exported loss and, with ``model``, the weights; config and results are metadata."""
    import wandb

    roles = ["loss", "loss_description", *(["model"] if model else [])]
    files = [event.files[role] for role in roles if role in event.files]
    if not files:
        return
    known = {name: event.summary[name] for name in _PROVENANCE if name in event.summary}
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{run.name}-loss")[-128:]
    artifact = wandb.Artifact(name, type="loss", metadata={**known, "config": dict(config)})
    # Copies, because a resumed run may write the files again before an offline run is uploaded.
    # They are stored beside wandb's files.
    copies = Path(run.dir).parent / "artifact"
    copies.mkdir(exist_ok=True)
    for file in files:
        copy = shutil.copyfile(file, copies / file.name)
        artifact.add_file(str(copy), name=file.name, policy="immutable")
    run.log_artifact(artifact)


def add_report(run: Any, folder: Path) -> None:
    """Log the page of ``metaloss report`` as a panel."""
    import wandb

    # By name, because reports are in a higher layer.
    write = importlib.import_module("metaloss.study.report.report").write_report
    page = write(folder, Path(run.dir).parent / "report.html")
    run.log({"report": wandb.Html(str(page), inject=False)})
