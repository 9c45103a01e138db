"""Options that have a new name. The old name works for one version, with a notice."""

from __future__ import annotations

import warnings

# Old key: (new key, version in which the old one goes).
RENAMED = {"meta_optimizer.keep_states": ("meta_optimizer.checkpointing", "0.3")}

# What was said already: a word is parsed several times on its way.
_said: set[str] = set()


def renamed(word: str) -> str:
    """Return a ``KEY=VALUE`` word with the key's new name, if it has one.

    Example:
        >>> renamed("inner.lr=0.1")
        'inner.lr=0.1'
    """
    key, equals, value = word.partition("=")
    return f"{renamed_key(key)}{equals}{value}"


def renamed_key(key: str) -> str:
    """Return an option's key, the new one for an old one.

    Warns:
        FutureWarning: Once for each old name, in one line.
    """
    if key not in RENAMED:
        return key
    new, gone = RENAMED[key]
    if key not in _said:
        _said.add(key)
        message = f"{key} is now called {new}; the old name works until metaloss {gone}"
        warnings.warn_explicit(message, FutureWarning, "metaloss", 0)
    return new
