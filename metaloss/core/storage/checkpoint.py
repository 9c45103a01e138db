"""Checkpoints with a checksum. Reading one executes no code."""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import torch

from metaloss.core.storage.files import write_atomically
from metaloss.errors import MetalossError, first_line

VERSION = 4
KEPT = 2
# Not those of torch: such a file begins with a line and a checksum. Older versions wrote ``.pt``.
ENDING, _OLD_ENDING = ".checkpoint", ".pt"
_MAGIC = b"metaloss checkpoint\n"


def save(folder: Path, number: int, content: dict[str, Any]) -> Path:
    """Write checkpoint ``number`` (tensors, numbers, strings, dicts, lists); drop the oldest.

    Those with a higher number are dropped too: the run was resumed from an earlier one.
    """
    buffer = io.BytesIO()
    torch.save({"version": VERSION, **content}, buffer)
    payload = buffer.getvalue()
    path = folder / f"{number:012d}{ENDING}"
    write_atomically(path, _MAGIC + hashlib.sha256(payload).digest() + payload)
    every = checkpoints_in(folder)
    upto = [one for one in every if int(one.stem) <= number]
    for old in {*every} - {*upto[-KEPT:]}:
        old.unlink()
    return path


def checkpoints_in(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, oldest first."""
    found = (path for path in folder.glob("*.*") if path.suffix in (ENDING, _OLD_ENDING))
    return sorted(path for path in found if path.stem.isdecimal())


def load_newest(
    folder: Path, device: torch.device, upto: int | None = None
) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the newest undamaged checkpoint, or None, and a message for each damaged one.

    With ``upto``, checkpoints with a higher number are left out.

    Raises:
        MetalossError: If a checkpoint has another format version.
    """
    messages = []
    paths = checkpoints_in(folder)[::-1]
    if upto is not None:
        paths = [path for path in paths if int(path.stem) <= upto]
    for path in paths:
        try:
            content = _load(path, device)
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, _DamagedError) as error:
            instead = "starting over" if path is paths[-1] else "using the one before"
            messages.append(f"checkpoint {path.name} is damaged ({first_line(error)}): {instead}")
            continue
        if content["version"] != VERSION:
            raise MetalossError(
                f"checkpoint {path} has format version {content['version']}; this metaloss reads "
                f"version {VERSION}"
            )
        return content, messages
    return None, messages


class _DamagedError(Exception):
    """The file is damaged."""


def _load(path: Path, device: torch.device) -> dict[str, Any]:
    data = path.read_bytes()
    head = len(_MAGIC)
    if data[:head] != _MAGIC:
        raise _DamagedError("not a checkpoint")
    digest, payload = data[head : head + 32], data[head + 32 :]
    if hashlib.sha256(payload).digest() != digest:
        raise _DamagedError("its checksum does not match")
    return torch.load(io.BytesIO(payload), map_location=device, weights_only=True)
