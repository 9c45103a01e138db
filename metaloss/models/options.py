"""What the models share: activations by name, and checks of options and shapes."""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import Enum

from torch import nn

from metaloss.errors import MetalossError


class Activation(Enum):
    """Activations of the hidden layers; none works in place."""

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


def check_widths(name: str, widths: list[int]) -> None:
    """Raise unless there are one or more widths, all positive whole numbers."""
    if not widths or not all(_positive(width) for width in widths):
        raise MetalossError(f"{name}={widths}: expected one or more whole numbers, each at least 1")


def check_positive(name: str, value: object) -> None:
    """Raise unless ``value`` is a positive whole number."""
    if not _positive(value):
        raise MetalossError(f"{name}={value}: expected a whole number, at least 1")


def check_dropout(dropout: float, name: str = "model.dropout") -> None:
    """Raise unless ``0 <= dropout < 1``."""
    if not 0 <= dropout < 1:
        raise MetalossError(f"{name}={dropout}: expected a number ≥ 0 and < 1")


def check_shapes(
    model: str, input_shape: tuple[int, ...], outputs: int, dimensions: Collection[int]
) -> None:
    """Raise unless the model takes rows with so many dimensions, none of them empty.

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
    if not _positive(outputs):
        raise MetalossError(
            f"model={model}: outputs={outputs}: expected a whole number, at least 1"
        )


def check_picture(
    model: str, input_shape: tuple[int, ...], outputs: int, *, least: int = 1
) -> tuple[int, int, int]:
    """Return (channels, H, W), or raise unless rows are pictures of at least ``least`` × ``least``.

    Example:
        >>> check_picture("allcnnc", (3, 8, 8), 10, least=9)
        Traceback (most recent call last):
        metaloss.errors.MetalossError: model=allcnnc: input_shape=(3, 8, 8): expected pictures \
(channels, H, W) of at least 9×9
    """
    shape = tuple(input_shape)
    fits = len(shape) == 3 and all(_positive(size) for size in shape)
    if not fits or min(shape[1:]) < least:
        raise MetalossError(
            f"model={model}: input_shape={shape}: expected pictures (channels, H, W) of at least "
            f"{least}×{least}"
        )
    check_shapes(model, shape, outputs, (3,))
    channels, height, width = shape
    return channels, height, width


def _positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
