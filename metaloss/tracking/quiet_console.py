"""A Rich console that survives a closed pipe."""

from __future__ import annotations

import os
from contextlib import suppress

from rich.console import Console


class QuietConsole(Console):
    """A Rich console that stops writing when its pipe is closed. Rich would end the program.

    Example:
        >>> read, write = os.pipe()
        >>> os.close(read)
        >>> with os.fdopen(write, "w") as file:
        ...     console = QuietConsole(file=file)
        ...     console.print("hello")
        >>> console.quiet
        True
    """

    def on_broken_pipe(self) -> None:
        """Write nothing more, and discard what is still buffered."""
        self.quiet = True
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.file.fileno())
            os.close(nowhere)
