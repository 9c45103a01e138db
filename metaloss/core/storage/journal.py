"""The journal of a run: one JSON object per line, readable after a crash."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from metaloss.core.storage.files import reason, without_nan
from metaloss.errors import MetalossError


class Journal:
    """An append-only file of JSON lines that can be truncated to the size at a checkpoint.

    If a line does not fit on the disk, its first part is removed again.

    Args:
        path: The file; it is created if it does not exist.
        keep: Number of bytes to keep of an existing file, from :meth:`position`; None: all.

    Raises:
        MetalossError: If the file cannot be written, or is shorter than ``keep``.
    """

    def __init__(self, path: Path, *, keep: int | None = None) -> None:
        self._path = path
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise self._failed(error) from error
        try:
            # The system releases the lock when the process ends.
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise MetalossError(
                f"the journal {path} is being written by another process: is this run still going?"
            ) from error
        except OSError:
            pass  # a file system without locks
        try:
            size = self._file.seek(0, os.SEEK_END)
            if keep is not None and size >= keep:
                self._file.truncate(keep)
                self._file.seek(0, os.SEEK_END)
        except OSError as error:
            self._file.close()
            raise self._failed(error) from error
        if keep is not None and size < keep:
            self._file.close()
            raise MetalossError(
                f"the journal {path} has {size} bytes, its checkpoint was written after {keep}: "
                "it was cut or replaced, so that the run cannot be continued"
            )

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one object. NaN and infinities are written as null."""
        line = json.dumps(without_nan(row), allow_nan=False).encode() + b"\n"
        before = self._file.tell()
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            # The first part of the line may be in the file.
            with suppress(OSError):
                self._file.truncate(before)
            raise self._failed(error) from error

    def position(self) -> int:
        """Write everything to the disk and return the size in bytes.

        Raises:
            MetalossError: If this fails, or the file was removed or moved.
        """
        try:
            if not os.path.samestat(os.fstat(self._file.fileno()), self._path.stat()):
                raise FileNotFoundError(errno.ENOENT, "another file has taken its place")
            os.fsync(self._file.fileno())
        except FileNotFoundError as error:
            raise MetalossError(
                f"the journal {self._path} is gone ({reason(error)}): was the run's folder removed "
                "or moved while it was trained?"
            ) from error
        except OSError as error:
            raise self._failed(error) from error
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):
            self._file.close()

    def _failed(self, error: OSError) -> MetalossError:
        return MetalossError(f"cannot write the journal {self._path}: {reason(error)}")
