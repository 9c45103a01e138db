"""What a module and its trainer may do, and what cannot be followed."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities.model_helpers import is_overridden

from metaloss.errors import MetalossError

# Lightning's name of a precision, and that of `Learner`. A module in another type as a whole keeps
# that type.
PRECISIONS = {"32-true": "fp32", "bf16-mixed": "bf16", "64-true": "fp32", "bf16-true": "fp32"}
# Hooks of a module that work on gradients. A learned step has none in ``.grad``.
_OWN = ("backward", "optimizer_step", "configure_gradient_clipping")


def check(trainer: pl.Trainer, module: pl.LightningModule) -> None:
    """Raise if a module or its trainer does what cannot be followed.

    Raises:
        MetalossError: With the first such thing, and what to change.
    """
    kind = type(module).__name__
    if not module.automatic_optimization:
        raise MetalossError(
            f"{kind} has automatic_optimization=False: expected automatic optimization, with "
            "one optimizer and a training_step that returns the loss"
        )
    for hook in _OWN:
        if is_overridden(hook, module, pl.LightningModule):
            raise MetalossError(
                f"{kind}.{hook} is your own: the steps under a learned loss do not call it, so "
                "remove it (gradient_clip_val of the Trainer works)"
            )
    if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
        raise MetalossError(
            f"the Trainer's strategy is a {type(trainer.strategy).__name__}: expected one device "
            "or strategy='ddp'"
        )
    if str(trainer.precision) not in PRECISIONS:
        raise MetalossError(
            f"precision={trainer.precision}: expected one of {', '.join(PRECISIONS)}"
        )
    if trainer.gradient_clip_val and str(_clip_algorithm(trainer)) == "value":
        raise MetalossError("gradient_clip_algorithm=value: expected norm")


def _clip_algorithm(trainer: pl.Trainer) -> Any:
    return getattr(trainer.gradient_clip_algorithm, "value", trainer.gradient_clip_algorithm)
