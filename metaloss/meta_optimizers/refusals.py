"""One-line errors for operations that an engine cannot differentiate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from metaloss.errors import UnsupportedError, first_line

# PyTorch's messages about missing derivatives.
_NO_DERIVATIVE = (
    "Trying to use forward AD with",
    "jvp is not implemented",
    "You must implement the jvp function",
    "setup_context staticmethod",
    "does not support it because it has not been implemented",
    "we do not support forward AD",
    "derivative for aten::",
    "the derivative for '",
    "differentiate twice",
    "not differentiable twice",
    "double backwards is not supported",
    "does not support double backward",
)


@contextmanager
def refused_politely(engine: str, *, lacks: str) -> Iterator[None]:
    """Replace PyTorch's error about a missing derivative by one line.

    Args:
        engine: The registered name of the engine.
        lacks: The derivative that the engine needs, in words.

    Raises:
        UnsupportedError: Instead of PyTorch's error about a missing derivative.
    """
    try:
        yield
    # PyTorch raises this type or a subclass; other errors are raised again.
    except RuntimeError as error:
        said = first_line(error)
        if not any(words in str(error) for words in _NO_DERIVATIVE):
            raise
        raise UnsupportedError(
            f"meta_optimizer={engine} needs {lacks}, which an operation in the model or the loss "
            f"does not have ({said})"
        ) from error
