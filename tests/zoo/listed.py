"""Kinds as parameters of a test."""

from collections.abc import Callable, Iterable

import pytest

from .every import KINDS
from .kind import Kind


def listed(names: Iterable[str], *, heavy: Callable[[Kind], bool] | None = None) -> list:
    """Return names of kinds as parameters: heavy ones go to the long form."""
    found = []
    for name in names:
        kind = KINDS[name]
        marks = [pytest.mark.faults] if (kind.heavy if heavy is None else heavy(kind)) else []
        found.append(pytest.param(name, marks=marks))
    return found
