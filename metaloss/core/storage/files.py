"""Atomic writes of files."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metaloss.errors import MetalossError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that, after a crash at any moment, it is completely the old or the new one.

    Raises:
        MetalossError: If it cannot be written: a full disk, a quota, a folder that is read-only.
    """
    try:
        _write(path, content)
    except OSError as error:
        raise MetalossError(f"cannot write {path}: {reason(error)}") from error


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    # The rename must be on the disk too.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def reason(error: OSError) -> str:
    """Return the system's message for an error, without the names of files.

    Example:
        >>> reason(OSError(28, "No space left on device", "a/file"))
        'No space left on device'
    """
    return error.strerror or str(error) or type(error).__name__


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object as indented JSON, atomically; see :func:`without_nan`."""
    write_atomically(path, to_json(value))


def to_json(value: Mapping[str, Any]) -> bytes:
    """Return an object as indented JSON; see :func:`without_nan`."""
    text = json.dumps(without_nan(value), indent=2, ensure_ascii=False, allow_nan=False)
    # Lone surrogates, which UTF-8 cannot encode, are escaped.
    return text.encode("utf-8", "backslashreplace") + b"\n"


def without_nan(value: Any) -> Any:
    """Return a JSON value with None for NaN and infinities, which JSON does not have."""
    if isinstance(value, Mapping):
        return {name: without_nan(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def from_json(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: If it is no JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object from a file; an empty one if the file is missing or damaged."""
    try:
        found = from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
