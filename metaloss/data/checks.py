"""Range checks of options and numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from metaloss.errors import MetalossError

# Larger integers are not tokens but identifiers or measurements.
_MOST_TOKENS = 2**31


def number(
    name: str,
    value: object,
    low: float,
    high: float,
    *,
    include_low: bool = False,
    include_high: bool = False,
) -> None:
    """Raise unless ``low < value < high``, or ``≤`` for an included end.

    Example:
        >>> number("task.label_noise", 1.5, 0, 1, include_low=True)
        Traceback (most recent call last):
        metaloss.errors.MetalossError: task.label_noise=1.5: expected a number ≥ 0 and < 1
    """
    real = isinstance(value, int | float) and not isinstance(value, bool)
    if real and low < value < high:  # type: ignore[operator]
        return
    if real and ((include_low and value == low) or (include_high and value == high)):
        return
    lower = f"{'≥' if include_low else '>'} {low}"
    # An end at infinity means any finite number.
    upper = f"{'≤' if include_high else '<'} {high}" if high != float("inf") else "finite"
    raise MetalossError(f"{name}={value}: expected a number {lower} and {upper}")


def fractions(valid: float, test: float) -> None:
    """Raise unless two parts may be drawn and leave rows to train on.

    Example:
        >>> fractions(0.5, 0.5)
        Traceback (most recent call last):
        metaloss.errors.MetalossError: task.valid_fraction=0.5 and task.test_fraction=0.5: \
expected a sum below 1
    """
    number("task.valid_fraction", valid, 0, 1)
    number("task.test_fraction", test, 0, 1)
    if valid + test >= 1:
        raise MetalossError(
            f"task.valid_fraction={valid} and task.test_fraction={test}: expected a sum below 1"
        )


def whole(name: str, value: object, least: int) -> None:
    """Raise unless ``value`` is a whole number, at least ``least``.

    Example:
        >>> whole("task.subset", 0, 1)
        Traceback (most recent call last):
        metaloss.errors.MetalossError: task.subset=0: expected a whole number, at least 1
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise MetalossError(f"{name}={value}: expected a whole number, at least {least}")


def finite(part: str, what: str, values: Tensor) -> Tensor:
    """Return numbers in torch's default type.

    Raises:
        MetalossError: If they have NaN or infinities, or are too large for this type.
    """
    converted = values.to(torch.get_default_dtype())
    if bool(converted.isfinite().all()):
        return converted
    if bool(values.isfinite().all()):
        largest = values.abs().max().item()
        limit = torch.finfo(converted.dtype).max
        raise MetalossError(
            f"{part}: {what} up to {largest:.3g}; expected numbers below {limit:.3g}, the largest "
            f"of {converted.dtype}"
        )
    raise MetalossError(f"{part}: {what} hold NaN or infinity; expected finite numbers")


class Checked:
    """The base class of options, where the chain of ``__post_init__`` calls ends."""

    def __post_init__(self) -> None:
        """Check nothing."""


def checked_inputs(part: str, inputs: Tensor) -> Tensor:
    """Return inputs (B, ...) in torch's default type, or int64 if they are tokens.

    Raises:
        MetalossError: If they are of another type, or are not finite.
    """
    if inputs.is_floating_point():
        return finite(part, "inputs", inputs)
    if inputs.dtype in (torch.int16, torch.int32, torch.int64):
        inputs = inputs.to(torch.int64)
        if int(inputs.abs().max()) >= _MOST_TOKENS:
            raise MetalossError(
                f"{part}: integer inputs from {inputs.min().item()} to {inputs.max().item()}; "
                "expected tokens below 2³¹ (for measurements: inputs.float())"
            )
        return inputs
    # Bytes may be pixels or tokens.
    raise MetalossError(
        f"{part}: inputs are {inputs.dtype}; expected floating-point numbers (for pixels: "
        "inputs / 255), or int64 for tokens"
    )
