"""Activations by name, dropout, and checks of options and shapes."""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import Enum

from torch import nn

from metaloss.errors import MetalossError, check_range, check_whole


class Activation(Enum):
    """Activations of the hidden layers. None works in place."""

    relu = "relu"
    tanh = "tanh"
    gelu = "gelu"
    silu = "silu"


_MODULES: dict[Activation, Callable[[], nn.Module]] = {
    Activation.relu: nn.ReLU,
    Activation.tanh: nn.Tanh,
    Activation.gelu: nn.GELU,
    Activation.silu: nn.SiLU,
}


def activation_module(activation: Activation) -> nn.Module:
    """Return the activation as a module.

    Example:
        >>> activation_module(Activation.silu)
        SiLU()
    """
    return _MODULES[activation]()


def dropout(rate: float) -> list[nn.Module]:
    """Return a dropout layer, or no layer if the rate is 0."""
    return [nn.Dropout(rate)] if rate > 0 else []


def check_widths(name: str, widths: list[int]) -> None:
    """Raise unless there are one or more widths, all whole numbers ≥ 1."""
    holds = bool(widths) and all(map(_positive, widths))
    check_range(name, widths, holds, "one or more whole numbers, each at least 1")


def check_dropout(rate: float, name: str = "model.dropout") -> None:
    """Raise unless a dropout rate is in [0, 1)."""
    check_range(name, rate, 0 <= rate < 1, "a number in [0, 1)")


def check_shapes(
    model: str, input_shape: tuple[int, ...], outputs: int, dimensions: Collection[int]
) -> None:
    """Raise unless rows have an allowed number of dimensions, none of them empty.

    Example:
        >>> check_shapes("cnn", (1, 2, 3, 4), 10, (1, 2, 3))
        Traceback (most recent call last):
        metaloss.errors.MetalossError: model=cnn: input_shape=(1, 2, 3, 4): expected 1, 2 or 3 \
dimensions, each at least 1
    """
    shape = tuple(input_shape)
    if len(shape) not in dimensions or not all(_positive(size) for size in shape):
        *most, last = map(str, sorted(dimensions))
        counts = f"{', '.join(most)} or {last}" if most else last
        plural = "" if counts == "1" else "s"
        raise MetalossError(
            f"model={model}: input_shape={shape}: expected {counts} dimension{plural}, each at "
            "least 1"
        )
    check_whole(f"model={model}: outputs", outputs, 1)


def check_image(
    model: str, input_shape: tuple[int, ...], outputs: int, *, least: int = 1
) -> tuple[int, int, int]:
    """Return (channels, H, W), or raise unless rows are images of at least ``least`` × ``least``.

    Example:
        >>> check_image("allcnnc", (3, 8, 8), 10, least=9)
        Traceback (most recent call last):
        metaloss.errors.MetalossError: model=allcnnc: input_shape=(3, 8, 8): expected images \
(channels, H, W) of at least 9×9
    """
    shape = tuple(input_shape)
    fits = len(shape) == 3 and all(_positive(size) for size in shape)
    if not fits or min(shape[1:]) < least:
        raise MetalossError(
            f"model={model}: input_shape={shape}: expected images (channels, H, W) of at least "
            f"{least}×{least}"
        )
    check_whole(f"model={model}: outputs", outputs, 1)
    channels, height, width = shape
    return channels, height, width


def _positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
