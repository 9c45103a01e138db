"""A loss from files, as a part that a config can name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from metaloss.errors import MetalossError
from metaloss.losses.base import LearnedLoss
from metaloss.losses.export import load_loss
from metaloss.types import Link


@dataclass(frozen=True, kw_only=True)
class LoadConfig:
    """Options of ``load``."""

    path: str = field(default="", metadata={"help": "folder with loss.safetensors and loss.json"})


class Load(LearnedLoss):
    """A loss that was exported, or the one in a run's folder; use it with ``start=keep``."""

    Config = LoadConfig

    # The result is the loaded family's own object, so that it trains, prints and exports as such.
    def __new__(cls, config: LoadConfig, *, link: Link) -> Any:
        """Return the loss in ``config.path``."""
        if not config.path:
            raise MetalossError("loss=load needs loss.path=FOLDER")
        loss = load_loss(config.path)
        if loss.link is not link:
            raise MetalossError(
                f"the loss in {config.path} was learned for link={loss.link.name}, the task needs "
                f"link={link.name}"
            )
        return loss
