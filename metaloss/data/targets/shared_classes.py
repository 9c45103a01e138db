"""Whether several files or folders hold the same classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from metaloss.data.files import warn
from metaloss.errors import MetalossError


def check_shared_classes(
    paths: Sequence[str], labels: Sequence[np.ndarray], classes: Sequence[str]
) -> None:
    """Say which classes occur in one of the files or folders only; the training rows' are first.

    Raises:
        MetalossError: If none of a place's classes is a class of the training rows.
    """
    held = [np.isin(np.arange(len(classes)), one) for one in labels]
    for path, one in zip(paths[1:], held[1:], strict=True):
        if not (one & held[0]).any():
            raise MetalossError(f"{path}: none of its classes occurs in {paths[0]}")
    alone = [
        f"{classes[place]!r} in {Path(paths[int(np.argmax(here))]).name}"
        for place, here in enumerate(np.stack(held, axis=1))
        if here.sum() == 1
    ]
    if alone and len(paths) > 1:
        warn(f"{paths[0]}: classes that occur in one place only: {', '.join(alone[:10])}")
