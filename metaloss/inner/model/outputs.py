"""Which of the things that a model returns are its raw outputs."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from metaloss.errors import MetalossError, unknown_name

_LOGGER = logging.getLogger(__name__)

# Names of raw outputs in models that return several things.
_NAMES = ("logits", "out", "output", "outputs", "prediction_logits")

# A key or attribute, a place, or a function of what the model returns.
Choice = str | int | Callable[[Any], Tensor]
# Several outputs with their shares of the learned loss; the first one is the main one.
Heads = Mapping[Choice, float]


def stated(module: nn.Module) -> Choice | Heads | None:
    """Return what a model itself says of its raw outputs: its attribute or method ``raw_outputs``.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> model.raw_outputs = {"logits": 1.0, "aux_logits": 0.3}
        >>> stated(model)
        {'logits': 1.0, 'aux_logits': 0.3}
    """
    value = getattr(module, "raw_outputs", None)
    return None if isinstance(value, Tensor | nn.Module) else value


class Outputs:
    """Finds the raw outputs among what a model returns.

    By themselves are found: a tensor; the entry or attribute ``logits``, ``out`` or similar; the
    first tensor of a tuple, list or dictionary, which is said once.

    Args:
        output: A key or attribute, a place, a function, or several of these with their shares of
            the learned loss. None: find them.

    Attributes:
        shares: The shares of several outputs; empty for one.

    Raises:
        MetalossError: If ``output`` is something else.

    Example:
        >>> returned = {"features": torch.zeros(2, 9), "logits": torch.ones(2, 3)}
        >>> Outputs()(returned).shape, Outputs("features")(returned).shape
        (torch.Size([2, 3]), torch.Size([2, 9]))
        >>> Outputs({"logits": 1.0, lambda found: found["logits"] * 2: 0.3})(returned).shape
        torch.Size([2, 3, 2])
    """

    def __init__(self, output: Choice | Heads | None = None) -> None:
        heads = dict(output) if isinstance(output, Mapping) else {output: 1.0}
        for one, share in heads.items():
            known = isinstance(one, str | int) or callable(one) or one is output is None
            if not known or isinstance(one, bool):
                raise MetalossError(
                    f"output={one!r}: expected a key, a place, a function of what the model "
                    "returns, or a dictionary of these with their shares of the loss"
                )
            if not isinstance(share, int | float) or not math.isfinite(share) or share < 0:
                raise MetalossError(
                    f"output: the share of {one!r} is {share}: expected a number ≥ 0"
                )
        if not heads:
            raise MetalossError("output={}: expected one output or more")
        self._choices = list(heads)
        self.shares = tuple(map(float, heads.values())) if isinstance(output, Mapping) else ()
        self._said = False

    def __call__(self, returned: Any, train: bool = True) -> Tensor:
        """Return the raw outputs (B, C, *); (B, C, *, H) of several in train mode.

        A model that returns a tensor in evaluation mode, and more than that in train mode, returns
        its main outputs there.

        Raises:
            MetalossError: If the choice is not among what the model returned.
        """
        if not self.shares or not train:
            return self._one(self._choices[0], returned)
        if isinstance(returned, Tensor) and not all(map(callable, self._choices)):
            raise MetalossError(
                "the model returns one tensor, but output= has several: is it in evaluation mode?"
            )
        found = [self._one(choice, returned) for choice in self._choices]
        shapes = [tuple(value.shape) for value in found]
        if len(set(shapes)) > 1:
            raise MetalossError(
                f"the outputs {self._choices} have the shapes {shapes}: expected the same for all, "
                "since they have the same targets"
            )
        return torch.stack(found, -1)

    def _one(self, choice: Choice | None, returned: Any) -> Tensor:
        if choice is None:
            return self._found(returned)
        if callable(choice):
            return _tensor(choice(returned), f"output={getattr(choice, '__name__', 'function')}")
        if isinstance(returned, Tensor):
            return returned
        if isinstance(choice, str):
            held = isinstance(returned, Mapping) and choice in returned
            value = returned[choice] if held else getattr(returned, choice, None)
            if value is None:
                raise unknown_name("output", choice, _named(returned))
            return _tensor(value, f"output={choice!r}")
        values = list(returned.values()) if isinstance(returned, Mapping) else list(returned)
        if not -len(values) <= choice < len(values):
            raise MetalossError(f"output={choice}: the model returns {len(values)} values")
        return _tensor(values[choice], f"output={choice}")

    def _found(self, returned: Any) -> Tensor:
        if isinstance(returned, Tensor):
            return returned
        for name in _NAMES:
            held = isinstance(returned, Mapping) and name in returned
            value = returned[name] if held else getattr(returned, name, None)
            if isinstance(value, Tensor):
                self._say(logging.INFO, returned, repr(name))
                return value
        values = returned.values() if isinstance(returned, Mapping) else returned
        if isinstance(returned, Mapping | tuple | list):
            for place, value in enumerate(values):
                if isinstance(value, Tensor):
                    self._say(logging.WARNING, returned, f"the first tensor (output={place})")
                    return value
        raise MetalossError(
            f"the model returns a {type(returned).__name__} without a tensor: expected raw outputs "
            "(B, C, *), or a tuple or dictionary with them at the first place or as 'logits' or "
            "'out'; output= chooses"
        )

    def _say(self, level: int, returned: Any, what: str) -> None:
        if not self._said:
            kind = type(returned).__name__
            _LOGGER.log(level, "the model returns a %s: its raw outputs are %s", kind, what)
        self._said = True


def _tensor(value: Any, what: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise MetalossError(f"{what} is a {type(value).__name__}: expected a tensor (B, C, *)")
    return value


def _named(returned: Any) -> list[str]:
    """Return the names of what a model returned."""
    if isinstance(returned, Mapping):
        return [name for name in returned if isinstance(name, str)]
    fields: Any = getattr(returned, "_fields", None) or getattr(returned, "__dict__", ())
    return list(fields)
