"""The tracker ``wandb``: Weights & Biases, online or offline."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
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
from metaloss.errors import MetalossError, first_line
from metaloss.tracking.numbers import line
from metaloss.tracking.wandb_content import (
    add_artifact,
    add_report,
    flat_summary,
    named,
    parts_of,
)
from metaloss.tracking.wandb_key import has_key
from metaloss.tracking.wandb_options import Curves, Mode, WandBConfig
from metaloss.tracking.wandb_process import close_run, open_run

_CURVES = "loss/curves"
# wandb's own code for Ctrl-C; its server shows such a run as killed, not as failed.
_INTERRUPTED, _DIVERGED = 255, 3
# By default, wandb tries for days to upload after the last step. After this time, the rest stays on
# the disk, for `wandb sync`.
_UPLOAD_SECONDS = 600.0


class WandB(Tracker):
    """Logs a run to Weights & Biases; offline if there is no API key.

    Every number has the step of its phase as its x-axis: ``train/loss`` and ``valid/error`` the
    training step, ``offline/...`` the meta-step of the offline phase, ``start/...`` the step of the
    start. The learned loss is under ``loss/curves``. The last numbers are in the summary as
    ``final/valid/error``, those at the best validation metric as ``best/...``. The exported loss is
    an artifact of type ``loss``, with the config as its metadata. The logs have a line for each
    logged step. A resumed run becomes a new W&B run of the same group, because an offline run
    cannot be opened again. An offline run is uploaded with ``wandb sync``.

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
        self._started: RunStarted | None = None
        self._offsets: dict[str, int] = {}
        self._defined: set[str] = set()
        self._curves: list[LossCurves] = []
        self._notices: list[str] = []

    def handle(self, event: Event) -> None:
        """Log one event."""
        if self._mode is Mode.disabled:
            return
        if isinstance(event, RunStarted):
            self._started = event
            self._offsets = _offsets(event.totals)
            self._run = self._open(event)
            self._write(event.task)
        elif self._run is None:
            return
        elif isinstance(event, Logged):
            self._log_numbers(event)
        elif isinstance(event, LossCurves):
            self._log_curves(event)
        elif isinstance(event, Table):
            self._log_table(event)
        elif isinstance(event, Noticed):
            self._notices.append(f"step {event.step}: {event.message}")
            self._run.summary["notices"] = list(self._notices)
            self._write(f"{event.level}: {self._notices[-1]}")
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

        config, chosen = self._config, parts_of(event.config)
        kind = config.job_type or chosen.get("loss")
        options: dict[str, Any] = {
            "project": config.project,
            "entity": config.entity,
            "group": config.group or event.group or event.name,
            "name": config.run_name or " ".join(filter(None, [config.job_type, event.name])),
            "job_type": kind,
            "notes": config.notes,
            "tags": list(dict.fromkeys([*config.tags, *chosen.values()])),
            "dir": config.dir or str(event.folder),
            "config": dict(event.config),
            # The user may have another run open in this process.
            "reinit": "create_new",
        }
        if event.resumed_from is not None:
            options["config"]["resumed_from"] = event.resumed_from
            options["tags"].append("resumed")
        if config.dir is not None:
            Path(config.dir).mkdir(parents=True, exist_ok=True)
        try:
            return open_run(**options, mode=self._mode.value, settings=_settings(wandb, self._mode))
        except Exception as error:
            if not self._may_fall_back:
                raise
            _say(f"W&B cannot be reached, the run is kept offline: {first_line(error)}")
            self._mode = Mode.offline
            return open_run(**options, mode="offline", settings=_settings(wandb, self._mode))

    def _log_numbers(self, event: Logged) -> None:
        self._offsets[event.phase] = event.step - event.phase_step
        names = {name: named(event.phase, name) for name in event.numbers}
        for name in names.values():
            self._define(event.phase, name)
        numbers = {names[name]: value for name, value in event.numbers.items()}
        self._log(event.phase, event.step, numbers)
        self._write(f"{event.phase} {event.phase_step}: {line(event.numbers)}")

    def _log(self, phase: str, step: int, content: Mapping[str, Any]) -> None:
        """Log at the run's step, beside the step of the phase, which is the x-axis."""
        place = step - self._offsets.get(phase, 0)
        self._run.log({**content, f"step/{phase}": place}, step=step)

    def _define(self, phase: str, name: str) -> None:
        """Set the x-axis; let the summary have the best value of each validation number.

        Of test numbers it has the last value, because nothing may be chosen by them.
        """
        if name in self._defined:
            return
        if not self._defined & {f"step/{phase}"}:
            self._run.define_metric(f"step/{phase}", hidden=True)
        best = None
        if name.startswith("valid/") and self._started is not None:
            best = "min" if name == "valid/task_loss" else self._started.goal
        self._run.define_metric(name, step_metric=f"step/{phase}", summary=best)
        self._defined |= {name, f"step/{phase}"}

    def _log_curves(self, event: LossCurves) -> None:
        import wandb

        name = named(event.phase, _CURVES)
        if self._config.curves is Curves.image:
            from metaloss.tracking.curve_picture import draw

            self._curves = [one for one in self._curves if one.phase == event.phase] + [event]
            softmax = self._started is not None and self._started.link == "softmax"
            image = draw(self._curves, offset=self._offsets.get(event.phase, 0), softmax=softmax)
            if image is not None:
                self._log(event.phase, event.step, {name: wandb.Image(image)})
        elif self._config.curves is Curves.table:
            rows = [list(row) for row in zip(event.grid, *event.curves.values(), strict=True)]
            table = wandb.Table(columns=["prediction", *event.curves], data=rows)
            self._log(event.phase, event.step, {name: table})

    def _log_table(self, event: Table) -> None:
        import wandb

        # wandb does not accept infinities in a column of numbers.
        rows = [
            [None if cell in (math.inf, -math.inf) else cell for cell in row] for row in event.rows
        ]
        table = wandb.Table(columns=list(event.columns), data=rows)
        self._run.log({f"{event.name}/table": table}, step=event.step)

    def _finish(self, event: RunFinished) -> None:
        self._run.summary.update(flat_summary(event.summary))
        status = event.summary.get("status", "ended")
        self._write(f"{status}: {line(event.summary.get('metrics', {}))}")
        config = self._started.config if self._started else {}
        add_artifact(self._run, event, config, model=self._config.model)
        if self._config.report and self._started is not None:
            add_report(self._run, self._started.folder)
        self._ended = _DIVERGED if event.summary.get("status") == "diverged" else 0

    def _write(self, text: str) -> None:
        """Write to the run's logs; an older wandb has no such function."""
        write = getattr(self._run, "write_logs", None)
        if write is not None and text:
            write(text)


def _offsets(totals: Mapping[str, int]) -> dict[str, int]:
    """Return the number of steps before each phase."""
    before, found = 0, {}
    for phase, count in totals.items():
        found[phase] = before
        before += count
    return found


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


def _say(message: str) -> None:
    print(f"metaloss: {message}", file=sys.stderr)
