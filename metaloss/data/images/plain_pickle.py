"""A reader of pickles with plain data and numpy arrays, which executes nothing in them."""

from __future__ import annotations

import pickle
from typing import IO, Any

import numpy as np

from metaloss.errors import MetalossError


def read_plain(file: IO[bytes]) -> Any:
    """Return the content of a pickle with plain data.

    A pickle may name any function for the reader to call. This reader supports only the names that
    numpy arrays need, and refuses all others. Strings of Python 2 are read as Latin-1.

    Raises:
        MetalossError: If the pickle names another function or class.

    Example:
        >>> import io
        >>> read_plain(io.BytesIO(pickle.dumps({"labels": [3, 1]})))
        {'labels': [3, 1]}
        >>> read_plain(io.BytesIO(pickle.dumps(print)))
        Traceback (most recent call last):
        metaloss.errors.MetalossError: the pickle names builtins.print: expected numbers, strings, \
lists, dicts and numpy arrays alone
    """
    return _Reader(file, encoding="latin1").load()


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        known = _KNOWN.get((module.replace("numpy._core", "numpy.core"), name))
        if known is None:
            raise MetalossError(
                f"the pickle names {module}.{name}: expected numbers, strings, lists, dicts and "
                "numpy arrays alone"
            )
        return known


def _empty_array(*_: Any) -> np.ndarray:
    # The array's state, shape and type included, follows in the pickle.
    return np.empty(0, dtype=np.uint8)


def _plain_type(code: str, *_: Any) -> np.dtype:
    found = np.dtype(code)
    if found.kind not in "biuf":
        raise MetalossError(f"the pickle holds an array of {found}: expected numbers")
    return found


def _as_latin1(text: str, encoding: str) -> bytes:
    # How Python 3 stores bytes in the protocols of Python 2.
    return text.encode("latin1")


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _plain_type,
    ("_codecs", "encode"): _as_latin1,
}
