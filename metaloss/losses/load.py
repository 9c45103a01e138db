"""The part ``loss=load``: a loss from files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from metaloss.errors import MetalossError
from metaloss.losses.base import LearnedLoss
from metaloss.losses.export import load_loss
from metaloss.options import Options
from metaloss.types import Link


@dataclass(frozen=True, kw_only=True)
class LoadConfig(Options, group="loss"):
    """Options of ``load``."""

    path: str = field(default="", metadata={"help": "folder with loss.safetensors and loss.json"})


class Load(LearnedLoss):
    """An exported loss, or the one in a run's folder. Use it with ``start=keep``."""

    Config = LoadConfig

    # The result is an object of the loaded family, so that it trains, prints and exports as such.
    def __new__(cls, config: LoadConfig, *, link: Link) -> Any:
        """Return the loss in ``config.path``."""
        if not config.path:
            raise MetalossError("loss=load without loss.path: expected loss.path=FOLDER")
        loss = load_loss(config.path)
        if loss.link is not link:
            raise MetalossError(
                f"loss.path={config.path}: a loss for link={loss.link.name}, expected one for the "
                f"task's link={link.name}"
            )
        return loss
