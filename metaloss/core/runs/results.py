"""The results of a finished run: the model, the learned loss, the summary."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors.torch import save
from torch import Tensor, nn

from metaloss.contracts import Task
from metaloss.core.runs.evaluate import Evaluation, evaluate_run
from metaloss.core.runs.predict import BEST_MODEL, MODEL, outputs_for
from metaloss.core.runs.summary import Summary, ended_with, summarize
from metaloss.core.runs.suspects import packed_ledger, suspects_of
from metaloss.core.storage.files import read_json, to_json, write_atomically, write_json
from metaloss.core.storage.run_folder import (
    JOURNAL,
    LEDGER,
    PLUGINS,
    SCHEDULE,
    SUMMARY,
    read_rows,
)
from metaloss.core.training.trainer import Trainer
from metaloss.data.pipeline import PIPELINE, FittedPipeline, load_pipeline, pipeline_of
from metaloss.errors import MetalossError
from metaloss.inner.model.write_back import write_back
from metaloss.losses.base import LearnedLoss
from metaloss.losses.export import DESCRIPTION, WEIGHTS, family_of, load_loss, pack


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run.

    Attributes:
        folder: The folder with its files.
        summary: The results of the run, as in ``summary.json``.
        model: The trained model, on the CPU.
        loss: The learned loss, on the CPU; None for a loaded run whose loss has no
            registered name.
    """

    folder: Path
    summary: Summary
    model: nn.Module
    loss: LearnedLoss | None

    @cached_property
    def pipeline(self) -> FittedPipeline:
        """What was fitted on the training rows: it encodes new rows, and names predictions."""
        return load_pipeline(self.folder)

    def outputs(self, rows: Any) -> Tensor:
        """Return the raw outputs (B, C, *) for new rows, on the CPU; see :meth:`predict`."""
        return outputs_for(self.folder, self.model, self.pipeline.encode(rows)).cpu()

    def predict(self, rows: Any) -> Any:
        """Return a DataFrame of predictions for new rows.

        Args:
            rows: Rows in the form of the task's data: a DataFrame with the same columns, or an
                array or tensor (B, ...).

        Returns:
            ``class`` and the probability ``p(NAME)`` of each class; or ``value``, in the units of
            the target.

        Raises:
            MetalossError: If a column is missing, or the shape is wrong.
        """
        return self.pipeline.predictions(self.outputs(rows))

    def evaluate(self, source: Any = None, *, metrics: Sequence[str] = ()) -> Evaluation:
        """Return metrics on rows with known targets, and the confusion matrix.

        Args:
            source: A file or folder in the format of the task; or a pair of rows (see
                :meth:`predict`) and targets: classes by name or number, or values in the units of
                the target. None: the run's own test rows.
            metrics: Names, such as ``["f1_macro"]``; none: those of the run's ``task.metrics``, or
                else all.

        Raises:
            MetalossError: If the rows cannot be read, or a class or a metric is unknown.
        """
        return evaluate_run(self.folder, self.model, self.pipeline, source, metrics)

    def suspects(self, *, task: Task | None = None) -> pd.DataFrame:
        """Return the training rows, those with the most doubtful label first.

        Args:
            task: Your own task, if the run was made with one.

        Returns:
            A row for each training row. The index is its position among them. The columns are

            - ``line``, ``file`` or ``row``: where it is from;
            - ``given`` and ``suggested``: the label in the data, and what the model predicts;
            - ``score``: higher is more doubtful; for a regression the mean squared error;
            - ``p``: the mean probability of the given label over training; for a regression
              ``error`` instead;
            - ``wrong`` and ``last``: the share of wrong guesses, and the last probability;
            - ``visits``: how often the row was in a batch;
            - ``noisy``: whether the label is wrong, if the task has made the noise itself.

        Raises:
            MetalossError: If the run has no ledger, or its training rows have changed.
        """
        return suspects_of(self.folder, self.model, self.pipeline, task)[0]

    def journal(self) -> list[dict[str, Any]]:
        """Return all lines of the journal, oldest first."""
        return read_rows(self.folder / JOURNAL)


def write_results(trainer: Trainer, folder: Path, seconds: float) -> tuple[Run, dict[str, Path]]:
    """Write the model, the loss and, last, the summary; return the run and its files by role.

    ``seconds``: the duration of the run.
    """
    setup, state = trainer.setup, trainer.state
    best = trainer.best
    files, contents = {"model": folder / MODEL}, {}
    if best.inner is not None and best.moment != ended_with(trainer):
        module = setup.problem.model.module_with(best.inner.params, best.inner.buffers)
        contents[folder / BEST_MODEL] = _saved(module)
    model = setup.problem.model.module_with(state.inner.params, state.inner.buffers)
    contents[files["model"]] = _saved(model)
    loss = copy.deepcopy(setup.loss).cpu()
    write_back(loss, state.phi, {})
    config = setup.config
    provenance = {
        "task": config.task.name,
        "model": config.model.name,
        "seed": config.seed,
        "schedule": config.schedule.name,
        "steps": trainer.progress.train,
    }
    summary = summarize(trainer, seconds, read_json(folder / PLUGINS))
    summary = setup.ranks.same(summary)
    provenance["versions"] = summary.versions
    contents[folder / PIPELINE] = to_json(pipeline_of(setup.task).to_dict())
    if state.ledger is not None:
        contents[folder / LEDGER] = packed_ledger(state.ledger)
    if family_of(loss) is not None:
        packed = pack(loss, state.phi, provenance)
        files["loss"], files["loss_description"] = folder / WEIGHTS, folder / DESCRIPTION
        contents |= {files["loss"]: packed[0], files["loss_description"]: packed[1]}
    recorded = trainer.recording.content(loss, trainer.last_phi, trainer.progress.train, provenance)
    if recorded is not None and not trainer.ladder.diverged:
        contents[folder / SCHEDULE] = recorded
    if setup.ranks.leads:
        for path, content in contents.items():
            write_atomically(path, content)
        # Last, because a folder with a summary is a finished run.
        write_json(folder / SUMMARY, summary.as_dict())
    # All processes wait until the files are written.
    setup.ranks.any(False)
    return Run(folder=folder, summary=summary, model=model, loss=loss), files


def _saved(model: nn.Module) -> bytes:
    # A module may have further entries of any type (`get_extra_state`).
    weights = {
        name: value.clone().contiguous()
        for name, value in model.state_dict().items()
        if isinstance(value, Tensor)
    }
    return save(weights, metadata={"format": "pt"})


def export_run(folder: Path, out: Path) -> list[Path]:
    """Copy the learned loss of a run to another folder; return the files written.

    There is also ``criterion.py``, the same loss for programs without metaloss, unless the loss
    sees more of a row than its outputs; ``formula.tex`` if it is a formula; and the loss schedule
    if the run has one.

    Raises:
        MetalossError: If there is no undamaged loss in ``folder``, or ``out`` has one already.

    Example:
        >>> import tempfile
        >>> from metaloss import train
        >>> run = train(["steps=5", "start.steps=5", "tracker=[]", f"output={tempfile.mkdtemp()}"])
        >>> written = export_run(run.folder, Path(tempfile.mkdtemp()))
        >>> [path.name for path in written[:3]]
        ['loss.safetensors', 'loss.json', 'criterion.py']
    """
    loss = load_loss(folder)
    contents = {name: (folder / name).read_bytes() for name in (WEIGHTS, DESCRIPTION)}
    for name, text in (("criterion.py", loss.python()), ("formula.tex", loss.latex())):
        if text is not None:
            contents[name] = f"{text.rstrip()}\n".encode()
    if (folder / SCHEDULE).is_file():
        contents[SCHEDULE] = (folder / SCHEDULE).read_bytes()
    for name in contents:
        if (out / name).exists():
            raise MetalossError(f"{out / name} exists already: choose another folder")
    for name, content in contents.items():
        write_atomically(out / name, content)
    return [out / name for name in contents]
