"""Range checks of options and numbers."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metaloss.errors import MetalossError

# Larger integers are not tokens but identifiers or measurements.
_MOST_TOKENS = 2**31
# Bytes of the largest numbers that torch has; numpy's longdouble has more.
_WIDEST = 8


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


# What options of tasks need to have an effect; see `metaloss.options.unused`.
NOISE = (lambda own: own.label_noise, "task.label_noise, such as task.label_noise=0.4")
# A share of drawn rows needs rows that are drawn.
DRAWS_TRUSTED = (
    lambda own: not (getattr(own, "trusted", "") or getattr(own, "trusted_column", "")),
    "trusted rows that are drawn, and these are given",
)
DRAWS_TEST = (
    lambda own: not getattr(own, "test", ""),
    "test rows that are drawn, and these are given (task.test)",
)


def fractions(valid: float, test: float, idle: Collection[str] = ()) -> None:
    """Raise unless the parts that are drawn leave rows to train on.

    ``idle`` names the options without effect, since the rows of their part are given.

    Example:
        >>> fractions(0.5, 0.5)
        Traceback (most recent call last):
        metaloss.errors.MetalossError: task.valid_fraction=0.5 and task.test_fraction=0.5: \
expected a sum below 1
        >>> fractions(0.5, 0.5, idle=["valid_fraction"])
    """
    number("task.valid_fraction", valid, 0, 1)
    number("task.test_fraction", test, 0, 1)
    if not {"valid_fraction", "test_fraction"} & {*idle} and valid + test >= 1:
        raise MetalossError(
            f"task.valid_fraction={valid} and task.test_fraction={test}: expected a sum below 1"
        )


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


def checked_inputs(part: str, inputs: Tensor) -> Tensor:
    """Return inputs (B, ...) in torch's default type, or int64 if they are tokens; or fields.

    Raises:
        MetalossError: If they are of another type, or are not finite.
    """
    return pytree.tree_map(partial(_checked, part), inputs)


def _checked(part: str, inputs: Tensor) -> Tensor:
    if inputs.is_floating_point():
        return finite(part, "inputs", inputs)
    if inputs.dtype in (torch.int16, torch.int32, torch.int64):
        inputs = inputs.to(torch.int64)
        # Not by abs(), which the lowest integer has none of.
        if any(abs(int(end)) >= _MOST_TOKENS for end in inputs.aminmax()):
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


def as_rows(value: Any, part: str) -> Tensor:
    """Return a tensor or array of rows as a tensor on the CPU.

    Raises:
        MetalossError: If it is something else, or has no rows of real numbers.
    """
    if not isinstance(value, Tensor | np.ndarray):
        raise MetalossError(
            f"{part}: got a pair with a {type(value).__name__}; expected tensors or arrays"
        )
    unfit = _unfit(value)
    if unfit:
        raise MetalossError(f"{part}: got {unfit}; expected dense tensors of real numbers")
    try:
        tensor = torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError):  # byte orders and strides that torch does not support
        assert isinstance(value, np.ndarray)
        tensor = torch.as_tensor(value.astype(value.dtype.newbyteorder("="), order="C"))
    if tensor.ndim == 0:
        raise MetalossError(f"{part}: got a tensor without dimensions; expected rows (B, ...)")
    if tensor.dtype is torch.uint64 and bool((tensor.view(torch.int64) < 0).any()):
        raise MetalossError(f"{part}: got integers ≥ 2⁶³; expected smaller ones")
    return tensor


def _unfit(value: Tensor | np.ndarray) -> str:
    """Return the type of a tensor or array that is not supported; empty if it is."""
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        return "an array with masked values"
    if isinstance(value, np.ndarray):
        fits = value.dtype.kind in "biuf" and value.dtype.itemsize <= _WIDEST
        return "" if fits else f"an array of {value.dtype}"
    if value.is_nested:
        return "a nested tensor, whose rows differ in shape"
    if value.layout is not torch.strided:
        return f"a sparse tensor ({value.layout})"
    if value.is_quantized or value.is_complex():
        return f"a tensor of {value.dtype}"
    return "a tensor on the meta device, which has no values" if value.is_meta else ""
