"""The truth about a run: one JSON object a line, flushed, readable after a kill."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from metaloss.core.files import without_nan
from metaloss.errors import MetalossError


class Journal:
    """An append-only file of JSON lines that can be cut back to a checkpoint.

    Args:
        path: The file; made if it is not there.
        keep: Bytes to keep of an existing file, as :meth:`position` gave them; None keeps all.

    Raises:
        MetalossError: If the file cannot be written, or is shorter than ``keep``. A run without
            its journal must stop.
    """

    def __init__(self, path: Path, *, keep: int | None = None) -> None:
        self._path = path
        try:
            self._file = path.open("ab")
            # Freed by the system when the process ends, however it ends.
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise MetalossError(
                f"the journal {path} is being written by another process: is this run still going?"
            ) from error
        except OSError as error:
            raise MetalossError(f"cannot write the journal {path}: {error.strerror}") from error
        try:
            size = self._file.seek(0, os.SEEK_END)
            if keep is not None and size >= keep:
                self._file.truncate(keep)
                self._file.seek(0, os.SEEK_END)
        except OSError as error:
            raise MetalossError(f"cannot write the journal {path}: {error.strerror}") from error
        if keep is not None and size < keep:
            self._file.close()
            raise MetalossError(
                f"the journal {path} has {size} bytes, its checkpoint was written after {keep}: "
                "it was cut or replaced, so that the run cannot be continued"
            )

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one object; numbers that JSON has no word for are written as null."""
        try:
            self._file.write(json.dumps(without_nan(row), allow_nan=False).encode() + b"\n")
            self._file.flush()
        except (OSError, ValueError) as error:
            raise MetalossError(f"cannot write the journal {self._path}: {error}") from error

    def position(self) -> int:
        """Return the size so far, in bytes, after making sure that it is on the disk."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise MetalossError(f"cannot write the journal {self._path}: {error}") from error
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        # On a full disk, closing fails like the write before it, which said so.
        with suppress(OSError):
            self._file.close()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a journal; a last line that a kill cut off is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows
