"""Loads a finished run from its folder."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import nn

from metaloss.core.runs.predict import BEST_MODEL, MODEL, load_model, outputs_for
from metaloss.core.runs.results import Run
from metaloss.core.runs.summary import Summary
from metaloss.core.storage.files import write_atomically
from metaloss.core.storage.run_folder import SUMMARY, read_run
from metaloss.data.pipeline import load_pipeline
from metaloss.errors import MetalossError
from metaloss.losses.export import DESCRIPTION, load_loss


def load_run(
    folder: str | Path,
    *,
    model: nn.Module | None = None,
    diverged: bool = False,
    best: bool = False,
) -> Run:
    """Return a finished run from its folder, which may have been moved.

    Args:
        folder: The folder of the run.
        model: Your own model, if the run was made with one. It is not changed.
        diverged: Whether to return a run that has diverged; its predictions are useless.
        best: Whether the model has the weights of the best validation metric, not the last ones.

    Raises:
        MetalossError: If the folder has no finished run, is damaged or of a newer version.

    Example:
        >>> import tempfile
        >>> from metaloss import train
        >>> run = train(["steps=5", "start.steps=5", "tracker=[]", f"output={tempfile.mkdtemp()}"])
        >>> again = load_run(run.folder)
        >>> images = [[[[0.0] * 8] * 8]]
        >>> again.predict(images).equals(run.predict(images))
        True
    """
    folder = Path(folder)
    found = read_run(folder)
    content = found.summary
    if content is None:
        damaged = (note for note in found.notes if f"{SUMMARY} is damaged" in note)
        raise MetalossError(next(damaged, f"{folder}: the run is not finished (no {SUMMARY})"))
    names = {field.name for field in fields(Summary)}
    try:
        summary = Summary(**{name: one for name, one in content.items() if name in names})
    except TypeError as error:
        raise MetalossError(f"{folder / SUMMARY} is of another version: {error}") from error
    if summary.status == "diverged" and not diverged:
        raise MetalossError(
            f"{folder}: the run has diverged, so that its predictions are useless; use --force, or "
            "diverged=True in Python, to load it anyway"
        )
    # Without a file of their own, the best weights are those that the run ended with.
    at_best, ended = summary.metrics_at_best_validation, summary.ended_with or {}
    same = at_best.get("step") == ended.get("step", summary.steps)
    same = same and at_best.get("weights") == ended.get("weights")
    name = BEST_MODEL if best and not same else MODEL
    trained = load_model(folder, load_pipeline(folder), model, name)
    loss = load_loss(folder) if (folder / DESCRIPTION).exists() else None
    return Run(folder=folder, summary=summary, model=trained, loss=loss)


def predict_file(run: Run, rows: Path, out: Path) -> Any:
    """Write the predictions for the rows of a file; return them as a DataFrame.

    ``rows`` is a file in the format of the task. ``out`` is a CSV file with the place of each row
    and the result of :meth:`Run.predict`.

    Raises:
        MetalossError: If the rows cannot be read. Then nothing is written.
    """
    inputs, places = run.pipeline.read(rows)
    table = run.pipeline.predictions(outputs_for(run.folder, run.model, inputs).cpu())
    for place, (name, values) in enumerate(places.items()):
        table.insert(place, name, values)
    write_atomically(out, table.to_csv(index=False).encode("utf-8", "backslashreplace"))
    return table
