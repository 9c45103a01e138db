"""Say in one line what an engine cannot differentiate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from metaloss.errors import UnsupportedError

# The words in which PyTorch says that an operation lacks a derivative of the kind asked for.
_NO_FORWARD_MODE = (
    "Trying to use forward AD with",
    "jvp is not implemented",
    "You must implement the jvp function",
    "setup_context staticmethod",
    "does not support it because it has not been implemented",
    "we do not support forward AD",
)
_NO_DOUBLE_BACKWARD = (
    "derivative for aten::",
    "the derivative for '",
    "differentiate twice",
    "not differentiable twice",
    "double backwards is not supported",
    "does not support double backward",
)


@contextmanager
def refused_politely(engine: str, *, lacks: str) -> Iterator[None]:
    """Turn PyTorch's error about a missing derivative into one line.

    Args:
        engine: The registered name of the engine at work.
        lacks: What the engine needs, in words.

    Raises:
        UnsupportedError: In place of an error about a derivative that PyTorch does not have.
    """
    try:
        yield
    # PyTorch says it by this error, or by one derived from it; any other of them goes on below.
    except RuntimeError as error:
        said = str(error).strip().split("\n")[0]
        if not any(words in str(error) for words in _NO_FORWARD_MODE + _NO_DOUBLE_BACKWARD):
            raise
        raise UnsupportedError(
            f"meta_optimizer={engine} needs {lacks}, which an operation in the model or the loss "
            f"does not have ({said})"
        ) from error
