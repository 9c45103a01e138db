"""A disk that refuses one write after another, as full, read-only or broken ones do; or is slow."""

import errno
import os
import time
from contextlib import contextmanager
from pathlib import Path

FAILURES = {
    "full": errno.ENOSPC,
    "quota": errno.EDQUOT,
    "read-only": errno.EROFS,
    "broken": errno.EIO,
}


class Disk:
    """Everything that writes goes through :meth:`tick`: opening, writing, renaming, syncing.

    Attributes:
        count: Writes so far below ``folder``.
        fails_at: The number of the write from which on all fail; None: none does.
        error: The number of the system's error.
        delay: Seconds that each write takes.
    """

    def __init__(self, monkeypatch, folder):
        self._folder = str(folder)
        self.count, self.fails_at, self.error, self.delay = 0, None, errno.ENOSPC, 0.0
        self.kinds = set()
        opened = Path.open

        def open_it(path, mode="r", *args, **options):
            writes = set(mode) & set("wax+") and str(path).startswith(self._folder)
            if not writes:
                return opened(path, mode, *args, **options)
            self.tick("open")
            return _File(opened(path, mode, *args, **options), self)

        monkeypatch.setattr(Path, "open", open_it)
        for owner, name in ((Path, "replace"), (Path, "mkdir"), (os, "fsync")):
            self._watch(monkeypatch, owner, name)

    @contextmanager
    def failing(self, at, error):
        """Fail from the n-th write of the block on, until its end."""
        self.count, self.fails_at, self.error = 0, at, error
        try:
            yield
        finally:
            self.fails_at = None

    def tick(self, kind):
        """Let a write through, or not."""
        self.count += 1
        self.kinds.add(kind)
        if self.delay:
            time.sleep(self.delay)
        if self.fails_at is not None and self.count >= self.fails_at:
            raise OSError(self.error, os.strerror(self.error))

    def _watch(self, monkeypatch, owner, name):
        original = getattr(owner, name)

        def watched(first, *args, **options):
            if owner is os or str(first).startswith(self._folder):
                self.tick(name)
            return original(first, *args, **options)

        monkeypatch.setattr(owner, name, watched)


class _File:
    """A file of which a write may fail with half of it on the disk."""

    def __init__(self, file, disk):
        self._file, self._disk = file, disk

    def write(self, data):
        try:
            self._disk.tick("write")
        except OSError:
            self._file.write(data[: len(data) // 2])
            self._file.flush()
            raise
        return self._file.write(data)

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        self._file.__enter__()
        return self

    def __exit__(self, *error):
        return self._file.__exit__(*error)
