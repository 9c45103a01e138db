"""Metrics of a finished run on rows with known targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from metaloss import registry
from metaloss.compose import chosen_name, read_file
from metaloss.core.parts.custom import CUSTOM
from metaloss.core.runs.predict import composed, outputs_for
from metaloss.core.storage.digests import digest
from metaloss.core.storage.run_folder import CONFIG, read_summary
from metaloss.data.pipeline import FittedPipeline
from metaloss.data.targets.kinds import kind_of
from metaloss.data.targets.scores import check_scores, confusion, score_names, scores
from metaloss.errors import MetalossError
from metaloss.types import Batch, Link


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The metrics of a run on some rows.

    Attributes:
        rows: The number of rows.
        metrics: By name: the task's metric, ``error`` or ``mse``, then further ones.
        classes: The names of the C classes; None for a task without classes.
        confusion: Counts (C, C) of true classes (rows) by predicted classes (columns); None for a
            task without classes.
    """

    rows: int
    metrics: dict[str, float]
    classes: list[str] | None = None
    confusion: np.ndarray | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the evaluation as plain data."""
        counts = None if self.confusion is None else self.confusion.tolist()
        classes = {} if counts is None else {"classes": self.classes, "confusion": counts}
        return {"rows": self.rows, "metrics": self.metrics, **classes}


def evaluate_run(
    folder: Path, model: nn.Module, pipeline: FittedPipeline, source: Any, metrics: Sequence[str]
) -> Evaluation:
    """Return the metrics of a run; see `Run.evaluate`."""
    chosen = compose_task(folder) if source is None or not metrics else None
    if source is None:
        batch = own_test_rows(folder, chosen)
    elif isinstance(source, str | Path):
        batch = Batch(*pipeline.read_labelled(Path(source)))
    elif isinstance(source, tuple | list) and len(source) == 2:
        batch = Batch(pipeline.encode(source[0]), pipeline.targets(source[1]))
    else:
        raise MetalossError(
            f"evaluate() got a {type(source).__name__}: expected a file, or a pair of rows and "
            "targets"
        )
    if len(batch.inputs) != len(batch.targets):
        raise MetalossError(
            f"{len(batch.inputs)} rows and {len(batch.targets)} targets; expected one each"
        )
    kind = kind_of(batch.targets, pipeline.link)
    outputs = outputs_for(folder, model, batch.inputs)
    targets = batch.targets.to(outputs.device)
    names = metrics or getattr(getattr(chosen, "options", None), "metrics", ())
    further = check_scores(names or score_names(pipeline.link), pipeline.link, kind.metric_name)
    found = {kind.metric_name: kind.metric(outputs, targets).item()}
    found |= scores(further, outputs, targets, link=pipeline.link, pipeline=pipeline)
    if pipeline.link is not Link.softmax:
        return Evaluation(rows=len(outputs), metrics=found)
    return Evaluation(
        rows=len(outputs),
        metrics=found,
        classes=pipeline.classes or [str(place) for place in range(pipeline.outputs)],
        confusion=confusion(outputs, targets),
    )


def compose_task(folder: Path) -> Any:
    """Return the name and the options of a run's task; None for a task of the user's own."""
    if chosen_name(read_file(folder / CONFIG).get("task")) == CUSTOM:
        return None
    return composed(folder).task


def own_test_rows(folder: Path, chosen: Any) -> Batch:
    """Return the test rows of a run, read again.

    Raises:
        MetalossError: If the run's task was an object of the user's, or the rows have changed.
    """
    if chosen is None:
        raise MetalossError(
            f"{folder}: the run's task is your own object; expected a file of rows, or in Python "
            "run.evaluate((inputs, targets))"
        )
    seed = int(read_file(folder / CONFIG).get("seed", 0))
    task = registry.get("task", chosen.name).build(chosen.options).build(seed)
    summary = read_summary(folder) or {}
    before = summary.get("rows", {}).get("test")
    if before is not None and before != digest(task.test):
        raise MetalossError(
            f"{folder}: the test rows of task={chosen.name} have changed since the run; expected "
            "a file of rows"
        )
    return task.test
