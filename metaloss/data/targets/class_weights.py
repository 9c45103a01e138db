"""Weights of classes: given, or balanced by the training labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from metaloss.data.targets.metrics import IGNORED
from metaloss.errors import MetalossError, unknown_name

_EXPECTED = "expected balanced, a list with a number ≥ 0 for each class, or numbers by class"


def check_class_weights(asked: Any) -> None:
    """Raise unless the weights are None, ``balanced``, a list or a mapping of numbers ≥ 0.

    Raises:
        MetalossError: If they are something else, or none is above 0.
    """
    asked = _plain(asked)
    if asked is None or asked == "balanced":
        return
    if not isinstance(asked, Mapping | Sequence) or isinstance(asked, str):
        raise MetalossError(f"class_weights={asked}: {_EXPECTED}")
    numbers = [*asked.values()] if isinstance(asked, Mapping) else [*asked]
    for value in numbers:
        real = isinstance(value, int | float) and not isinstance(value, bool)
        if not real or not 0 <= value < math.inf:
            raise MetalossError(f"class_weights: {value!r}: {_EXPECTED}")
    if not isinstance(asked, Mapping) and not any(numbers):
        raise MetalossError("class_weights: all are 0; expected one above 0")


def class_weights(
    asked: Any,
    targets: Tensor,
    outputs: int,
    *,
    names: Sequence[str] | None = None,
    ignore_index: int = IGNORED,
) -> tuple[float, ...] | None:
    """Return a weight for each class, or None.

    ``balanced`` is scikit-learn's: n / (k n_c), with n rows of k classes, n_c of them of class c. A
    class without rows gets the weight of one with a single row.

    Args:
        asked: None, ``"balanced"``, C numbers, or numbers by class; others then have weight 1.
        targets: (B,) class indices of the training rows.
        outputs: C.
        names: What the classes are called, for a mapping; None: by their numbers.
        ignore_index: The class index that does not count.

    Raises:
        MetalossError: If the targets are not a class for each row, a class is unknown, or the
            number of weights is not C.

    Example:
        >>> class_weights("balanced", torch.tensor([0, 0, 0, 1]), 2)
        (0.6666666666666666, 2.0)
        >>> class_weights({"b": 5}, torch.tensor([0, 1]), 2, names=["a", "b"])
        (1.0, 5.0)
    """
    check_class_weights(asked)
    asked = _plain(asked)
    if asked is None:
        return None
    if targets.dim() != 1 or targets.is_floating_point():
        raise MetalossError(
            f"class_weights: targets of shape {tuple(targets.shape)} and {targets.dtype}; expected "
            "a class index for each row"
        )
    if asked == "balanced":
        counts = torch.bincount(targets[targets != ignore_index], minlength=outputs)
        rows, present = int(counts.sum()), int((counts > 0).sum())
        return tuple(rows / (present * max(1, count)) for count in counts.tolist())
    if isinstance(asked, Mapping):
        known = [*names] if names else [str(place) for place in range(outputs)]
        given = {str(name): float(value) for name, value in asked.items()}
        for name in given:
            if name not in known:
                raise unknown_name("class in class_weights", name, known)
        found = tuple(given.get(name, 1.0) for name in known)
        if not any(found):
            raise MetalossError("class_weights: all are 0; expected one above 0")
        return found
    if len(asked) != outputs:
        raise MetalossError(f"class_weights: {len(asked)} numbers for {outputs} classes")
    return tuple(float(value) for value in asked)


def _plain(asked: Any) -> Any:
    """Return an array or a tensor as a list, anything else as it is."""
    return asked.tolist() if hasattr(asked, "__array__") else asked
