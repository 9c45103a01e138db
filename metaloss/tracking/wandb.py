"""Weights & Biases: a run's config, numbers, loss curves and learned loss, online or offline."""

from __future__ import annotations

import math
import os
import re
import shutil
import sys
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from metaloss.contracts import (
    Event,
    Logged,
    LossCurves,
    Noticed,
    RunFinished,
    RunStarted,
    Table,
    Tracker,
)
from metaloss.errors import MetalossError
from metaloss.tracking.wandb_key import has_key
from metaloss.tracking.wandb_process import close_run, open_run

_CURVES = "loss/curves"
_ARTIFACT = ("loss", "loss_description", "model")
# What wandb itself says of Ctrl-C; its server shows such a run as killed, not as failed.
_INTERRUPTED, _DIVERGED = 255, 3
# wandb would try for days to upload after the last step. What is left stays on the disk, for
# `wandb sync`.
_UPLOAD_SECONDS = 600.0


class Mode(Enum):
    """Whether runs are sent to a server.

    ``auto``: what ``WANDB_MODE`` says; without it online if there is an API key, else offline.
    """

    auto = "auto"
    online = "online"
    offline = "offline"
    disabled = "disabled"


class Curves(Enum):
    """How the learned loss is shown: a picture, a table of its values, or not at all."""

    image = "image"
    table = "table"
    off = "off"


@dataclass(frozen=True, kw_only=True)
class WandBConfig:
    """Options of `WandB`."""

    project: str = field(default="metaloss", metadata={"help": "the project that runs go to"})
    entity: str | None = field(
        default=None, metadata={"help": "user or team; null: your default one"}
    )
    group: str | None = field(
        default=None, metadata={"help": "runs shown together; null: the name of the run's folder"}
    )
    tags: list[str] = field(default_factory=list, metadata={"help": "labels of the run"})
    mode: Mode = field(
        default=Mode.auto,
        metadata={"help": "auto (online if there is an API key), online, offline or disabled"},
    )
    dir: str | None = field(
        default=None, metadata={"help": "where wandb keeps its files; null: in the run's folder"}
    )
    curves: Curves = field(
        default=Curves.image, metadata={"help": "the learned loss as image, table or off"}
    )


class WandB(Tracker):
    """Logs a run to Weights & Biases; offline if there is no API key.

    Numbers are logged on the run's one growing step, the learned loss under ``loss/curves``, the
    exported loss as an artifact of type ``loss``, the summary as in ``summary.json``. A run that
    is resumed goes on as a new W&B run of the same group, since an offline run cannot be opened
    again.

    The process is left as it was found: no prompt, no captured output, no changed environment,
    signal handler or exit hook; the service process ends with the run. (Upload an offline run
    with ``wandb sync``.)

    Args:
        config: The options.

    Raises:
        MetalossError: With ``mode=online`` and no API key, which would end in a prompt.

    Example:
        >>> tracker = WandB(WandBConfig(mode=Mode.disabled))
        >>> tracker.handle(Noticed(step=1, message="nobody listens"))
        >>> tracker.close()
    """

    Config = WandBConfig

    def __init__(self, config: WandBConfig) -> None:
        self._config = config
        self._mode, self._may_fall_back = _resolve(config.mode)
        self._run: Any = None
        self._ended: int | None = None
        self._goal = "min"
        self._defined: set[str] = set()
        self._notices: list[str] = []

    def handle(self, event: Event) -> None:
        """Log one event."""
        if self._mode is Mode.disabled:
            return
        if isinstance(event, RunStarted):
            self._goal = event.goal
            self._run = self._open(event)
        elif self._run is None:
            return
        elif isinstance(event, Logged):
            self._define(event)
            numbers = {**event.numbers, f"step/{event.phase}": event.phase_step}
            self._run.log(numbers, step=event.step)
        elif isinstance(event, LossCurves):
            self._log_curves(event)
        elif isinstance(event, Table):
            self._log_table(event)
        elif isinstance(event, Noticed):
            self._notices.append(f"step {event.step}: {event.message}")
            self._run.summary["notices"] = list(self._notices)
        elif isinstance(event, RunFinished):
            self._finish(event)

    def close(self) -> None:
        """End the W&B run: as finished, diverged, failed or, after Ctrl-C, interrupted."""
        run, self._run = self._run, None
        if run is None:
            return
        exit_code = _failure() if self._ended is None else self._ended
        offline = Path(run.dir).parent if self._mode is Mode.offline else None
        close_run(run, exit_code)
        if offline is not None:
            _say(f"W&B run kept offline; upload it with: wandb sync {offline}")

    def _open(self, event: RunStarted) -> Any:
        import wandb

        config = self._config
        options: dict[str, Any] = {
            "project": config.project,
            "entity": config.entity,
            "group": config.group or event.group or event.name,
            "name": event.name,
            "tags": list(config.tags),
            "dir": config.dir or str(event.folder),
            "config": dict(event.config),
            # A run that the user has open in this process is another one.
            "reinit": "create_new",
        }
        if event.resumed_from is not None:
            options["config"]["resumed_from"] = event.resumed_from
            options["job_type"] = "resumed"
        if config.dir is not None:
            Path(config.dir).mkdir(parents=True, exist_ok=True)
        try:
            return open_run(**options, mode=self._mode.value, settings=_settings(wandb, self._mode))
        except Exception as error:
            if not self._may_fall_back:
                raise
            reason = str(error).strip().split("\n")[0]
            _say(f"W&B cannot be reached, the run is kept offline: {reason}")
            self._mode = Mode.offline
            return open_run(**options, mode="offline", settings=_settings(wandb, self._mode))

    def _define(self, event: Logged) -> None:
        """Have the summary keep the best value of each validation number.

        Those of the test split keep their last: the best of them is nothing that one may choose.
        """
        for name in event.numbers:
            if name.startswith("valid/") and name not in self._defined:
                self._defined.add(name)
                goal = "min" if name == "valid/task_loss" else self._goal
                self._run.define_metric(name, summary=goal)

    def _log_curves(self, event: LossCurves) -> None:
        import wandb

        if self._config.curves is Curves.image:
            from metaloss.tracking.curve_picture import draw

            self._run.log({_CURVES: wandb.Image(draw(event))}, step=event.step)
        elif self._config.curves is Curves.table:
            rows = [list(row) for row in zip(event.grid, *event.curves.values(), strict=True)]
            table = wandb.Table(columns=["prediction", *event.curves], data=rows)
            self._run.log({_CURVES: table}, step=event.step)

    def _log_table(self, event: Table) -> None:
        import wandb

        # A column of numbers with an infinity among them is no column of numbers to wandb.
        rows = [
            [None if cell in (math.inf, -math.inf) else cell for cell in row] for row in event.rows
        ]
        table = wandb.Table(columns=list(event.columns), data=rows)
        self._run.log({f"{event.name}/table": table}, step=event.step)

    def _finish(self, event: RunFinished) -> None:
        import wandb

        self._run.summary.update(dict(event.summary))
        files = [event.files[role] for role in _ARTIFACT if role in event.files]
        if any(role.startswith("loss") for role in event.files):
            name = re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{self._run.name}-loss")[-128:]
            artifact = wandb.Artifact(name, type="loss", metadata=_provenance(event))
            # Copies of the run's own: a resumed run writes its folder's files anew, maybe before
            # an offline run is uploaded. Beside wandb's files, they travel with them.
            copies = Path(self._run.dir).parent / "artifact"
            copies.mkdir(exist_ok=True)
            for file in files:
                copy = shutil.copyfile(file, copies / file.name)
                artifact.add_file(str(copy), name=file.name, policy="immutable")
            self._run.log_artifact(artifact)
        self._ended = _DIVERGED if event.summary.get("status") == "diverged" else 0


def _resolve(mode: Mode) -> tuple[Mode, bool]:
    """Return the mode to begin with, and whether offline will do where that fails."""
    key = has_key(os.environ, Path("~").expanduser(), Path())
    if mode is Mode.online and not key:
        raise MetalossError(
            "tracker.wandb.mode=online: there is no API key; run `wandb login`, set "
            "WANDB_API_KEY, or choose auto, offline or disabled"
        )
    if mode is not Mode.auto:
        return mode, False
    asked = os.environ.get("WANDB_MODE", "").lower()
    if asked == "disabled":
        return Mode.disabled, False
    if asked in ("offline", "dryrun") or not key:
        return Mode.offline, False
    return Mode.online, True


def _settings(wandb: Any, mode: Mode) -> Any:
    wanted = {
        "console": "off",
        "quiet": True,
        "silent": mode is not Mode.online,
        # The commit is in the summary; a diff of the user's uncommitted work is not ours to send.
        "disable_git": True,
        "save_code": False,
        "init_timeout": 30.0,
        "finish_timeout": _UPLOAD_SECONDS,
    }
    known = type(wandb.Settings()).model_fields
    return wandb.Settings(**{name: value for name, value in wanted.items() if name in known})


def _failure() -> int:
    """Return the exit code for a run that has no last event, from the exception on its way."""
    error = sys.exc_info()[1]
    if isinstance(error, KeyboardInterrupt):
        return _INTERRUPTED
    return int(getattr(error, "exit_status", 1))


def _provenance(event: RunFinished) -> dict[str, Any]:
    names = ("task", "model", "loss", "schedule", "seed", "steps", "status", "metrics")
    return {name: event.summary[name] for name in names if name in event.summary}


def _say(message: str) -> None:
    print(f"metaloss: {message}", file=sys.stderr)
