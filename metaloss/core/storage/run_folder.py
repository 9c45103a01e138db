"""The folder of a run: its files, whether it is finished, and its journal.

A folder may be damaged, or a run may be writing into it. Damaged parts are skipped.
"""

from __future__ import annotations

import fcntl
import math
import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from metaloss.compose import read_file
from metaloss.core.storage.files import from_json
from metaloss.errors import MetalossError, first_line

PHASES = ("start", "offline", "train")
CONFIG, JOURNAL, CURVES, SUMMARY = "config.yaml", "journal.jsonl", "curves.jsonl", "summary.json"
PLUGINS, MADE_OF, CHECKPOINTS = "plugins.json", "made_of.json", "checkpoints"
LEDGER = "ledger.safetensors"
# As in `metaloss.losses.loss_schedule`, which needs torch.
SCHEDULE = "loss_schedule.safetensors"
# Of two passes in one command: the config of both, and the folder of the first.
PASSES, FIRST = "passes.yaml", "first"
# Entries of a summary that have values by name, if there are any.
_NAMED = ("metrics_at_best_validation", "ended_with", "rows", "versions")


@dataclass(frozen=True, kw_only=True)
class JournalRow:
    """One logged step. ``numbers`` by name; NaN if they were not finite."""

    step: int
    phase: str
    phase_step: int
    numbers: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class CurvesRow:
    """The learned loss at one step: ``grid`` (G,) predictions, ``curves`` label → (G,) values."""

    step: int
    phase: str
    grid: np.ndarray
    curves: dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """The readable content of a run's folder.

    Attributes:
        path: The folder.
        config: ``config.yaml`` as plain data, without ``output``; empty if it cannot be read.
        journal: The logged steps, in order.
        curves: The learned loss over time.
        summary: ``summary.json``; None if the run has not finished.
        link: The loss's link (``"softmax"``, ...) from ``loss.json``; None before there is one.
        notes: A line for each skipped part, with the reason.
    """

    path: Path
    config: dict[str, Any]
    journal: tuple[JournalRow, ...]
    curves: tuple[CurvesRow, ...]
    summary: dict[str, Any] | None
    link: str | None
    notes: tuple[str, ...]

    def names(self) -> list[str]:
        """Return the name of every number in the journal, sorted."""
        return sorted({name for row in self.journal for name in row.numbers})

    def series(self, name: str, *, phase: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return steps (N,) and values (N,) of one number; NaN if it was not finite.

        Args:
            name: For example ``"test/error"``.
            phase: Return only rows of this phase, with steps counted within it.
        """
        points = [
            (row.step if phase is None else row.phase_step, row.numbers[name])
            for row in self.journal
            if name in row.numbers and phase in (None, row.phase)
        ]
        steps, values = zip(*points, strict=True) if points else ((), ())
        return np.asarray(steps, dtype=float), np.asarray(values, dtype=float)

    def phase_start(self, phase: str) -> int:
        """Return the step at which a phase began; 0 if nothing was logged in it."""
        for row in self.journal:
            if row.phase == phase:
                return row.step - row.phase_step
        return 0


def is_group(folder: Path) -> bool:
    """Return whether a folder has the folders of many seeds, and is not itself a run."""
    return not (folder / CONFIG).is_file() and bool(members_of(folder))


def members_of(folder: Path) -> list[Path]:
    """Return the folder of a run, or those of the runs of a group; empty if there is none."""
    if (folder / CONFIG).is_file():
        return [folder]
    return [path for path in sorted(folder.glob("seed*")) if (path / CONFIG).is_file()]


def steps_of_finished(folder: Path) -> int | None:
    """Return the number of training steps of a finished run; None if it is not finished."""
    summary = read_summary(folder)
    return None if summary is None else int(summary.get("steps", 0))


def has_nothing(folder: Path, beside: Collection[str] = ()) -> bool:
    """Return whether no run has begun in a folder; ``beside``: what it may have."""
    known = (PLUGINS, MADE_OF, SCHEDULE, *beside)
    return all(path.name in known or _temporary(path) for path in folder.iterdir())


def _temporary(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(".tmp")


def is_busy(folder: Path) -> bool:
    """Return whether a process is training the run in a folder."""
    for path in (folder, folder / JOURNAL, folder / FIRST / JOURNAL):
        try:
            number = os.open(path, os.O_RDONLY)
        except OSError:  # no journal yet
            continue
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # a file system without locks
            continue
        finally:
            os.close(number)
    return False


def read_run(path: Path) -> RunFolder:
    """Read the folder of a run. An incomplete last line of the journal is skipped, with a note.

    Raises:
        MetalossError: If there is no run at ``path``.
    """
    known = (CONFIG, JOURNAL, SUMMARY)
    if not any((path / name).is_file() for name in known):
        raise _no_run(path, f"expected one of {', '.join(known)}")
    notes: list[str] = []
    return RunFolder(
        path=path,
        config=_config(path, notes),
        journal=tuple(_growing(read_rows(path / JOURNAL, _journal_row, notes))),
        curves=tuple(_growing(read_rows(path / CURVES, _curves_row, notes))),
        summary=read_summary(path, notes),
        link=_link(path),
        notes=tuple(notes),
    )


def _no_run(path: Path, expected: str) -> MetalossError:
    if runs := members_of(path):
        return MetalossError(f"{path} holds several runs: give one of {', '.join(map(str, runs))}")
    if (path / PASSES).is_file():
        return MetalossError(
            f"{path} is in the first of two passes, which is in {path / FIRST}; to continue: "
            f"metaloss train --resume {path}"
        )
    return MetalossError(f"{path} is not the folder of a run: {expected}")


def read_summary(path: Path, notes: list[str] | None = None) -> dict[str, Any] | None:
    """Return a finished run's summary; None, with a note, if it is missing or damaged."""
    notes = [] if notes is None else notes
    try:
        summary = from_json((path / SUMMARY).read_text(encoding="utf-8"))
    except FileNotFoundError:
        notes.append(f"{path}: not finished (no {SUMMARY})")
        return None
    except (OSError, ValueError) as error:
        notes.append(f"{path}/{SUMMARY} is damaged ({first_line(error)})")
        return None
    if not isinstance(summary, dict) or not isinstance(summary.get("metrics"), dict):
        notes.append(f"{path}/{SUMMARY} is damaged (no metrics in it)")
        return None
    if wrong := [name for name in _NAMED if not isinstance(summary.get(name) or {}, dict)]:
        notes.append(f"{path}/{SUMMARY} is damaged ({wrong[0]} has no names)")
        return None
    return summary


def last_row(path: Path) -> JournalRow | None:
    """Return the last complete row of a journal without reading the whole file."""
    try:
        with (path / JOURNAL).open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - 8192))
            lines = file.read().splitlines(keepends=True)
    except OSError:
        return None
    for line in reversed(lines):
        if line.endswith(b"\n"):
            try:
                return _journal_row(from_json(line))
            except (ValueError, TypeError, KeyError, AttributeError):
                continue
    return None


def _config(path: Path, notes: list[str]) -> dict[str, Any]:
    try:
        return read_file(path / CONFIG)
    except MetalossError as error:
        notes.append(str(error))
        return {}


def _link(path: Path) -> str | None:
    try:
        link = from_json((path / "loss.json").read_text(encoding="utf-8"))["link"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return link if isinstance(link, str) else None


def read_rows(
    path: Path, parse: Callable[[dict[str, Any]], Any] = dict, notes: list[str] | None = None
) -> list[Any]:
    """Return the complete lines of a journal; empty if there is no file.

    Args:
        path: A run's ``journal.jsonl`` or ``curves.jsonl``.
        parse: Converts the object of a line; if it fails, the line is damaged.
        notes: Gets a message for each line that is incomplete or damaged.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return []
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(parse(from_json(line)))
        except (ValueError, TypeError, KeyError, AttributeError):
            where = "the last line" if number == len(lines) else f"line {number}"
            if notes is not None:
                notes.append(f"{path}: {where} is incomplete or damaged; skipped")
    return rows


def _growing(rows: Iterable[Any]) -> list[Any]:
    """Sort the rows. Steps that were written again after a crash replace earlier ones."""
    kept: list[Any] = []
    for row in rows:
        while kept and kept[-1].step > row.step:
            kept.pop()
        if kept and (kept[-1].step, kept[-1].phase) == (row.step, row.phase):
            earlier = kept.pop()
            if isinstance(row, JournalRow):
                row = replace(row, numbers=earlier.numbers | row.numbers)
        kept.append(row)
    return kept


def _journal_row(row: dict[str, Any]) -> JournalRow:
    fixed = {"step", "phase", "phase_step"}
    numbers = {
        name: math.nan if value is None else float(value)
        for name, value in row.items()
        if name not in fixed and (value is None or isinstance(value, int | float))
    }
    if row["phase"] not in PHASES:
        raise ValueError(row["phase"])
    return JournalRow(
        step=int(row["step"]),
        phase=row["phase"],
        phase_step=int(row["phase_step"]),
        numbers=numbers,
    )


def _curves_row(row: dict[str, Any]) -> CurvesRow:
    grid = np.asarray(row["grid"], dtype=float)
    curves = {label: np.asarray(values, dtype=float) for label, values in row["curves"].items()}
    if grid.ndim != 1 or grid.size < 2 or any(c.shape != grid.shape for c in curves.values()):
        raise ValueError("curves and grid differ in length")
    return CurvesRow(step=int(row["step"]), phase=row["phase"], grid=grid, curves=curves)
