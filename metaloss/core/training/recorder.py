"""Writes the journal of a run and sends events to trackers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from metaloss.contracts import Event, Logged, LossCurves, Noticed, Table
from metaloss.core.steps.state import Meter
from metaloss.core.storage.journal import Journal
from metaloss.core.storage.run_folder import CURVES, JOURNAL
from metaloss.core.training.curves import loss_curves
from metaloss.losses.base import LearnedLoss
from metaloss.types import Tensors

_NAMES = ("train/loss", "train/task_loss", "meta/task_loss", "meta/gradient_norm")


class Recorder:
    """Writes ``journal.jsonl`` and ``curves.jsonl`` and passes events on.

    ``emit`` must not raise. ``keep`` is the checkpoint to resume from, with ``files``, the result
    of :meth:`positions`, ``seconds``, the duration so far, and ``warnings``; None for a new run.

    Attributes:
        warnings: The warnings when a run was resumed, for its summary.
    """

    def __init__(
        self,
        folder: Path,
        emit: Callable[[Event], None],
        keep: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        keep = keep or {}
        positions = keep.get("files") or [0, 0]
        self._journal = Journal(folder / JOURNAL, keep=positions[0])
        try:
            self._curves = Journal(folder / CURVES, keep=positions[1])
        except BaseException:
            # Otherwise its lock would prevent a resumed run in this process.
            self._journal.close()
            raise
        self._emit = emit
        self._began = time.perf_counter() - keep.get("seconds", 0.0)
        self.warnings: list[str] = list(keep.get("warnings", ()))

    def log(self, step: int, phase: str, phase_step: int, numbers: Mapping[str, float]) -> None:
        """Write one journal line and send it to the trackers."""
        place = {"step": step, "phase": phase, "phase_step": phase_step}
        self._journal.write({**place, **numbers, "time/seconds": round(self.seconds(), 3)})
        self._emit(Logged(**place, numbers=numbers))  # type: ignore[arg-type]

    def curves(self, step: int, phase: str, loss: LearnedLoss, phi: Tensors, classes: int) -> None:
        """Write the current curves of the learned loss; see `loss_curves`."""
        grid, curves = loss_curves(loss, phi, classes=classes)
        self._curves.write({"step": step, "phase": phase, "grid": grid, "curves": curves})
        self._emit(LossCurves(step=step, phase=phase, grid=grid, curves=curves))

    def table(
        self, step: int, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]
    ) -> None:
        """Send the current rows of a table to the trackers."""
        plain = tuple(tuple(row) for row in rows)
        self._emit(Table(step=step, name=name, columns=tuple(columns), rows=plain))

    def seconds(self) -> float:
        """Return the duration of the run in seconds, also before it was resumed."""
        return time.perf_counter() - self._began

    def notice(self, step: int, message: str, level: str = "warning") -> None:
        """Send a message to the trackers; ``level``: info, warning or error."""
        self._emit(Noticed(step=step, message=message, level=level))

    def warn(self, place: tuple[int, str, int], message: str) -> None:
        """Write a warning into the journal and the summary, and send it to the trackers.

        ``place``: the step, the phase and its step.
        """
        names = ("step", "phase", "phase_step")
        self._journal.write({**dict(zip(names, place, strict=True)), "warning": message})
        self.warnings.append(message)
        self.notice(place[0], message)

    def positions(self) -> list[int]:
        """Return the sizes of both files on the disk."""
        return [self._journal.position(), self._curves.position()]

    def close(self) -> None:
        """Close both files."""
        self._journal.close()
        self._curves.close()


class Quiet(Recorder):
    """A recorder that does nothing, for all processes of a run except the first."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._began = folder, time.perf_counter()
        self.warnings: list[str] = []
        self._journal = self._curves = _Nowhere()
        self._emit = lambda event: None

    def curves(self, step: int, phase: str, loss: LearnedLoss, phi: Tensors, classes: int) -> None:
        """Do nothing, without computing the curves."""


class _Nowhere(Journal):
    """A journal without a file."""

    def __init__(self) -> None:
        pass

    def write(self, row: Mapping[str, Any]) -> None:
        """Do nothing."""

    def position(self) -> int:
        """Return that nothing is on the disk."""
        return 0

    def close(self) -> None:
        """Do nothing."""


def read_meter(meter: Meter, bad: torch.Tensor) -> tuple[dict[str, float], int]:
    """Return the means since the last line and the number of bad steps; waits for the device."""
    values = torch.cat((meter.sums, meter.counts, bad.reshape(1).to(meter.sums.dtype))).tolist()
    numbers = {
        name: total / count
        for name, total, count in zip(_NAMES, values[:4], values[4:8], strict=True)
        if count
    }
    return numbers, int(values[8])
