"""Modules with new random weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from metaloss.core.parts.runtime import seeded
from metaloss.errors import MetalossError


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Makes modules with new random weights: ``weights(phase, number)``.

    Attributes:
        build: Makes a module with torch's global generator, which is seeded before.
        seed: The run's seed.
        given: A user's module; training begins with its current weights.
    """

    build: Callable[[], nn.Module]
    seed: int
    given: nn.Module | None = None

    @classmethod
    def of(cls, module: nn.Module, seed: int) -> Weights:
        """Return the weights of a user's module; new ones by ``reset_parameters``."""
        return cls(build=lambda: reset(copy.deepcopy(module)), seed=seed, given=module)

    def __call__(self, phase: str, number: int) -> nn.Module:
        """Return the module that ``phase`` begins with (offline: its meta-step ``number``)."""
        if self.given is not None and phase == "train":
            return self.given
        with seeded(self.seed, f"weights/{phase}", number):
            return self.build()


@torch.no_grad()
def reset(module: nn.Module) -> nn.Module:
    """Draw all parameters of a module again by ``reset_parameters`` of each submodule; return it.

    Raises:
        MetalossError: If a submodule has parameters but no such method.
    """
    for name, part in module.named_modules():
        method = getattr(part, "reset_parameters", None)
        if callable(method):
            method()
        elif any(True for _ in part.parameters(recurse=False)):
            raise MetalossError(
                f"the model's part {name or 'itself'!r} ({type(part).__name__}) has "
                "parameters but no reset_parameters(): offline learning needs new weights; add "
                "one, or use schedule=online or static"
            )
    return module
