"""The training rows of a run, by how doubtful their labels are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from metaloss import registry
from metaloss.compose import read_file
from metaloss.contracts import Task
from metaloss.core.runs.evaluate import compose_task
from metaloss.core.runs.predict import outputs_for
from metaloss.core.steps.ledger import COLUMNS, notes_of
from metaloss.core.storage.digests import digest
from metaloss.core.storage.run_folder import CONFIG, LEDGER, read_summary
from metaloss.data.pipeline import FittedPipeline
from metaloss.errors import MetalossError
from metaloss.types import Link

# Rows that were never visited have a probability of one half.
_UNKNOWN = 0.5


def packed_ledger(ledger: Tensor) -> bytes:
    """Return the content of ``ledger.safetensors``: the ledger (N, 4) of all training rows."""
    return save({"ledger": ledger[:, : len(COLUMNS)].contiguous().clone()})


def suspects_of(
    folder: Path, model: nn.Module, pipeline: FittedPipeline, task: Task | None = None
) -> tuple[pd.DataFrame, Task]:
    """Return the training rows, the most doubtful first; see `Run.suspects`. And the run's task."""
    ledger = _read(folder)
    clean = None
    if task is None:
        task, clean = _tasks(folder)
    rows = task.train
    _check(folder, task, len(ledger))
    # Trusted rows, if they are trained on too, come after the training rows.
    total, wrong, last, visits = ledger[: len(rows.targets)].double().cpu().numpy().T
    seen = np.maximum(visits, 1)
    mean = np.where(visits > 0, total / seen, _UNKNOWN)
    outputs = outputs_for(folder, model, rows.inputs).cpu()
    labels, now = _labels(task, pipeline, outputs)
    columns: dict[str, Any] = dict(task.places) or {"row": range(len(rows.targets))}
    columns |= labels
    if task.link is Link.identity:
        columns |= {"score": mean, "error": mean, "last": last}
    else:
        share = wrong / seen
        # Of the scores tried on digits and a table (docs/suspects.md), the simplest of the best.
        columns |= {"score": 1 - (mean + now) / 2, "p": mean, "wrong": share, "last": last}
    columns["visits"] = visits.astype(int)
    if clean is not None:
        columns["noisy"] = (clean.train.targets != rows.targets).reshape(len(outputs), -1).any(1)
    table = pd.DataFrame(columns)
    return table.sort_values("score", ascending=False, kind="stable"), task


def quality(table: pd.DataFrame) -> dict[str, float] | None:
    """Return how well the scores of a task with known noise tell wrong labels from right ones.

    ``auroc`` is the chance that a wrong label has a higher score than a right one; ``precision`` is
    the share of wrong labels among as many rows of the highest score as there are wrong labels.
    None if it is not known which labels are wrong.
    """
    if "noisy" not in table or not 0 < int(table["noisy"].sum()) < len(table):
        return None
    noisy = table["noisy"].to_numpy()
    ranks = table["score"].rank().to_numpy()
    count = int(noisy.sum())
    above = ranks[noisy].sum() - count * (count + 1) / 2
    return {
        "auroc": float(above / (count * (len(noisy) - count))),
        "precision": float(noisy[:count].mean()),
        "wrong labels": count,
    }


def _read(folder: Path) -> Tensor:
    path = folder / LEDGER
    try:
        return load(path.read_bytes())["ledger"]
    except FileNotFoundError as error:
        raise MetalossError(
            f"{folder}: the run has no {LEDGER}: it was made with ledger=false, by an older "
            "version, or for a task whose outputs are not predictions of its targets"
        ) from error
    except (OSError, SafetensorError, KeyError) as error:
        raise MetalossError(f"{path} is damaged: {str(error).splitlines()[0]}") from error


def _tasks(folder: Path) -> tuple[Task, Task | None]:
    """Return the task of a run, built again, and the same without noise, if it has made noise."""
    chosen = compose_task(folder)
    if chosen is None:
        raise MetalossError(
            f"{folder}: the run's task is your own object; expected "
            "metaloss.load_run(folder).suspects(task=...) in Python"
        )
    seed = int(read_file(folder / CONFIG).get("seed", 0))
    part, options = registry.get("task", chosen.name), chosen.options
    task = part.build(options).build(seed)
    made = {one.name for one in fields(options)} & {"label_noise"}
    if not any(getattr(options, name) for name in made):
        return task, None
    return task, part.build(replace(options, **dict.fromkeys(made, 0.0))).build(seed)


def trains_on_trusted_alone(folder: Path) -> bool:
    """Return whether the ledger of a run is that of its trusted rows, none of which is suspect."""
    schedule = read_file(folder / CONFIG).get("schedule")
    return isinstance(schedule, Mapping) and schedule.get("train_on") == "validation"


def _check(folder: Path, task: Task, count: int) -> None:
    if trains_on_trusted_alone(folder):
        raise MetalossError(
            f"{folder}: the run was trained on its trusted rows alone (schedule.train_on="
            "validation); expected a run that was trained on the training rows"
        )
    before = (read_summary(folder) or {}).get("rows", {}).get("train")
    if count < len(task.train.targets) or (before and before != digest(task.train)):
        raise MetalossError(
            f"{folder}: the training rows of task={task.name} have changed since the run; expected "
            "the same rows"
        )


def _labels(
    task: Task, pipeline: FittedPipeline, outputs: Tensor
) -> tuple[dict[str, Any], np.ndarray]:
    """Return given and suggested labels, and the probability of the given by the trained model.

    Rows with outputs at several positions have no single label, and so no such columns.
    """
    targets = task.train.targets
    notes = notes_of(task)
    now = np.zeros(len(outputs)) if notes is None else notes(outputs, targets)[:, 0].numpy()
    names = pipeline.classes or [str(number) for number in range(pipeline.outputs)]
    if outputs.ndim > 2 or (task.link is not Link.softmax and outputs.shape[1] > 1):
        return {}, now
    if task.link is Link.softmax:
        labels = targets.argmax(1) if targets.is_floating_point() else targets
        pair = labels.tolist(), outputs.argmax(1).tolist()
        shown = [[names[one] if 0 <= one < len(names) else "" for one in each] for each in pair]
    elif task.link is Link.sigmoid:
        shown = [(targets[:, 0] > 0.5).int().tolist(), (outputs[:, 0] > 0).int().tolist()]
    else:
        shown = [pipeline.in_units(values)[:, 0].tolist() for values in (targets, outputs)]
    return {"given": shown[0], "suggested": shown[1]}, now
