"""A finished run, read back from its folder."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import nn

from metaloss.core.runs.predict import load_model, outputs_for
from metaloss.core.runs.results import Run
from metaloss.core.runs.summary import Summary
from metaloss.core.storage.files import write_atomically
from metaloss.core.storage.run_folder import SUMMARY, read_run
from metaloss.data.pipeline import load_pipeline
from metaloss.errors import MetalossError
from metaloss.losses.export import DESCRIPTION, load_loss


def load_run(folder: str | Path, *, model: nn.Module | None = None, diverged: bool = False) -> Run:
    """Return a finished run from its folder, wherever that was moved to.

    Args:
        folder: The run's.
        model: Your own model, where the run was made with it. It is not changed.
        diverged: Return also a run that ended as diverged; its model predicts nonsense.

    Raises:
        MetalossError: If the folder holds no finished run, is damaged or of a newer version.

    Example:
        >>> import tempfile
        >>> from metaloss import train
        >>> run = train(["steps=5", "start.steps=5", "tracker=[]", f"output={tempfile.mkdtemp()}"])
        >>> again = load_run(run.folder)
        >>> pictures = [[[[0.0] * 8] * 8]]
        >>> again.predict(pictures).equals(run.predict(pictures))
        True
    """
    folder = Path(folder)
    content = read_run(folder).summary
    if content is None:
        raise MetalossError(f"{folder}: the run is not finished (no {SUMMARY})")
    names = {field.name for field in fields(Summary)}
    try:
        summary = Summary(**{name: one for name, one in content.items() if name in names})
    except TypeError as error:
        raise MetalossError(f"{folder / SUMMARY} is of another version: {error}") from error
    if summary.status == "diverged" and not diverged:
        raise MetalossError(
            f"{folder}: the run ended as diverged, and its model predicts nonsense; --force, or "
            "diverged=True in Python, takes it all the same"
        )
    trained = load_model(folder, load_pipeline(folder), model)
    loss = load_loss(folder) if (folder / DESCRIPTION).exists() else None
    return Run(folder=folder, summary=summary, model=trained, loss=loss)


def predict_file(run: Run, rows: Path, out: Path) -> Any:
    """Write the predictions for the rows of a file; return them as a DataFrame.

    Args:
        run: A finished run.
        rows: A file as the task reads it.
        out: A CSV file: where each row is from, and what :meth:`Run.predict` returns.

    Raises:
        MetalossError: If the rows cannot be read; nothing is written then.
    """
    inputs, places = run.pipeline.read(rows)
    table = run.pipeline.predictions(outputs_for(run.folder, run.model, inputs))
    for place, (name, values) in enumerate(places.items()):
        table.insert(place, name, values)
    write_atomically(out, table.to_csv(index=False).encode("utf-8", "backslashreplace"))
    return table
