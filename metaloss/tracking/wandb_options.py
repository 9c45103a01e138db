"""The options of the tracker ``wandb``."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from metaloss.options import Options


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
class WandBConfig(Options, group="tracker.wandb"):
    """Options of `WandB`."""

    project: str = field(default="metaloss", metadata={"help": "project of the runs"})
    entity: str | None = field(default=None, metadata={"help": "user or team; null: your default"})
    run_name: str | None = field(
        default=None,
        metadata={"help": "name of the run; null: its job_type and the name of its folder"},
    )
    group: str | None = field(
        default=None, metadata={"help": "group of the run; null: the name of the run's folder"}
    )
    job_type: str | None = field(
        default=None,
        metadata={"help": "what the run is one of, such as a row of a comparison; null: the loss"},
    )
    notes: str | None = field(default=None, metadata={"help": "a longer description of the run"})
    tags: list[str] = field(
        default_factory=list,
        metadata={"help": "labels of the run, beside its task, model, loss and schedule"},
    )
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
    model: bool = field(default=False, metadata={"help": "upload the trained weights too"})
    report: bool = field(
        default=False, metadata={"help": "show the page of metaloss report too; needs plotly"}
    )
