"""A console whose reader may leave."""

from __future__ import annotations

import os
from contextlib import suppress

from rich.console import Console


class QuietConsole(Console):
    """Rich's console, which says nothing more when nobody reads: Rich would end the program.

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
        """Be quiet, and let what is still to be written go nowhere."""
        self.quiet = True
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.file.fileno())
            os.close(nowhere)
