"""The tracker ``wandb``: Weights & Biases, online or offline."""

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
# wandb's own code for Ctrl-C; its server shows such a run as killed, not as failed.
_INTERRUPTED, _DIVERGED = 255, 3
# By default, wandb tries for days to upload after the last step. After this time, the rest stays on
# the disk, for `wandb sync`.
_UPLOAD_SECONDS = 600.0


class Mode(Enum):
    """Whether runs are sent to a server.

    ``auto``: the value of ``WANDB_MODE``; if it is not set, online with an API key, else offline.
    """

    auto = "auto"
    online = "online"
    offline = "offline"
    disabled = "disabled"


class Curves(Enum):
    """How the learned loss is shown: as an image, as a table of values, or not at all."""

    image = "image"
    table = "table"
    off = "off"


@dataclass(frozen=True, kw_only=True)
class WandBConfig:
    """Options of `WandB`."""

    project: str = field(default="metaloss", metadata={"help": "project of the runs"})
    entity: str | None = field(default=None, metadata={"help": "user or team; null: your default"})
    group: str | None = field(
        default=None, metadata={"help": "group of the run; null: the name of the run's folder"}
    )
    tags: list[str] = field(default_factory=list, metadata={"help": "labels of the run"})
    mode: Mode = field(
        default=Mode.auto,
        metadata={"help": "auto (online if there is an API key), online, offline or disabled"},
    )
    dir: str | None = field(
        default=None, metadata={"help": "folder of wandb's files; null: the run's folder"}
    )
    curves: Curves = field(
        default=Curves.image,
        metadata={"help": "how the learned loss is shown: image, table or off"},
    )


class WandB(Tracker):
    """Logs a run to Weights & Biases; offline if there is no API key.

    Numbers are logged by the run's step, the learned loss under ``loss/curves``, the exported loss
    as an artifact of type ``loss``, and the content of ``summary.json`` as the summary. A resumed
    run becomes a new W&B run of the same group, because an offline run cannot be opened again. An
    offline run is uploaded with ``wandb sync``.

    The process is not changed: there is no prompt, no captured output, no new environment variable,
    signal handler or exit hook. The service process ends with the run.

    Args:
        config: The options.

    Raises:
        MetalossError: With ``mode=online`` and no API key.

    Example:
        >>> tracker = WandB(WandBConfig(mode=Mode.disabled))
        >>> tracker.handle(Noticed(step=1, message="not logged"))
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
        """End the W&B run, with an exit code for finished, diverged, failed or interrupted."""
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
            # The user may have another run open in this process.
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
        """Let the summary have the best value of each validation number.

        Of test numbers it has the last value, because nothing may be chosen by them.
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

        # wandb does not accept infinities in a column of numbers.
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
            # Copies, because a resumed run may write the files again before an offline run is
            # uploaded. They are stored beside wandb's files.
            copies = Path(self._run.dir).parent / "artifact"
            copies.mkdir(exist_ok=True)
            for file in files:
                copy = shutil.copyfile(file, copies / file.name)
                artifact.add_file(str(copy), name=file.name, policy="immutable")
            self._run.log_artifact(artifact)
        self._ended = _DIVERGED if event.summary.get("status") == "diverged" else 0


def _resolve(mode: Mode) -> tuple[Mode, bool]:
    """Return the mode to begin with, and whether offline is allowed if that fails."""
    key = has_key(os.environ, Path("~").expanduser(), Path())
    if mode is Mode.online and not key:
        raise MetalossError(
            "tracker.wandb.mode=online without an API key: run `wandb login`, set WANDB_API_KEY, "
            "or choose auto, offline or disabled"
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
        # Do not send a diff of uncommitted work. The commit is in the summary.
        "disable_git": True,
        "save_code": False,
        "init_timeout": 30.0,
        "finish_timeout": _UPLOAD_SECONDS,
    }
    known = type(wandb.Settings()).model_fields
    return wandb.Settings(**{name: value for name, value in wanted.items() if name in known})


def _failure() -> int:
    """Return the exit code of a run without a last event, from the current exception."""
    error = sys.exc_info()[1]
    if isinstance(error, KeyboardInterrupt):
        return _INTERRUPTED
    return int(getattr(error, "exit_status", 1))


def _provenance(event: RunFinished) -> dict[str, Any]:
    names = ("task", "model", "loss", "schedule", "seed", "steps", "status", "metrics")
    return {name: event.summary[name] for name in names if name in event.summary}


def _say(message: str) -> None:
    print(f"metaloss: {message}", file=sys.stderr)
