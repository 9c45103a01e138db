"""What a finished run leaves: the model, the learned loss, the summary."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor, nn

from metaloss.core.runs.predict import outputs_for
from metaloss.core.runs.summary import Summary, summarize
from metaloss.core.storage.files import read_json, to_json, write_atomically, write_json
from metaloss.core.storage.run_folder import JOURNAL, PLUGINS, SUMMARY, read_rows
from metaloss.core.training.trainer import Trainer
from metaloss.data.pipeline import PIPELINE, FittedPipeline, load_pipeline, pipeline_of
from metaloss.errors import MetalossError
from metaloss.losses.base import LearnedLoss
from metaloss.losses.export import DESCRIPTION, WEIGHTS, family_of, load_loss, pack


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run.

    Attributes:
        folder: Where its files are.
        summary: What the run came to; ``summary.json`` holds the same.
        model: The trained model, on the CPU.
        loss: The learned loss, on the CPU; None where a run was loaded whose loss has no
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
        return outputs_for(self.folder, self.model, self.pipeline.encode(rows))

    def predict(self, rows: Any) -> Any:
        """Return a DataFrame of predictions for new rows.

        Args:
            rows: As the task's were before anything was fitted: a DataFrame with the columns of a
                table, or an array or a tensor (B, ...).

        Returns:
            ``class`` and the probability ``p(NAME)`` of each class; or ``value``, in the units of
            the target.

        Raises:
            MetalossError: If the rows lack a column, or are of another shape.
        """
        return self.pipeline.predictions(self.outputs(rows))

    def journal(self) -> list[dict[str, Any]]:
        """Return every journal line, oldest first."""
        return read_rows(self.folder / JOURNAL)


def write_results(trainer: Trainer, folder: Path, seconds: float) -> tuple[Run, dict[str, Path]]:
    """Write the model, the loss and, last, the summary; return the run and its files by role.

    ``seconds``: what the run took.
    """
    setup, state = trainer.setup, trainer.state
    model = setup.problem.model.module_with(state.inner.params, state.inner.buffers)
    weights = {name: value.clone().contiguous() for name, value in model.state_dict().items()}
    files = {"model": folder / "model.safetensors"}
    contents = {files["model"]: save(weights, metadata={"format": "pt"})}
    loss = copy.deepcopy(setup.loss).cpu()
    for name, value in loss.named_parameters():
        value.data.copy_(state.phi[name])
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
    if family_of(loss) is not None:
        packed = pack(loss, state.phi, provenance)
        files["loss"], files["loss_description"] = folder / WEIGHTS, folder / DESCRIPTION
        contents |= {files["loss"]: packed[0], files["loss_description"]: packed[1]}
    if setup.ranks.leads:
        for path, content in contents.items():
            write_atomically(path, content)
        # Last: a folder with a summary is a finished run.
        write_json(folder / SUMMARY, summary.as_dict())
    # No process says that the run is done before its files are there.
    setup.ranks.any(False)
    return Run(folder=folder, summary=summary, model=model, loss=loss), files


def export_run(folder: Path, out: Path) -> list[Path]:
    """Copy a run's learned loss to a folder of its own; return the files written.

    A loss that is a formula is written down as well: ``criterion.py`` is the same loss for a
    program without metaloss, ``formula.tex`` is for people.

    Raises:
        MetalossError: If there is no whole loss in ``folder``, or ``out`` holds one already.
    """
    loss = load_loss(folder)
    contents = {name: (folder / name).read_bytes() for name in (WEIGHTS, DESCRIPTION)}
    for name, text in (("criterion.py", loss.python()), ("formula.tex", loss.latex())):
        if text is not None:
            contents[name] = f"{text.rstrip()}\n".encode()
    for name in contents:
        if (out / name).exists():
            raise MetalossError(f"{out / name} exists already: choose another folder")
    for name, content in contents.items():
        write_atomically(out / name, content)
    return [out / name for name in contents]
