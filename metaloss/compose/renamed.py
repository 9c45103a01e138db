"""Options with a new name. The old name works for one version, with a warning."""

from __future__ import annotations

import warnings

# Old key: (new key, version in which the old one is removed).
RENAMED = {"meta_optimizer.keep_states": ("meta_optimizer.checkpointing", "0.3")}

# Keys with a warning already: words are parsed several times.
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
    """Return the new key for an old one, any other key unchanged.

    Warns:
        FutureWarning: Once for each old key.
    """
    if key not in RENAMED:
        return key
    new, gone = RENAMED[key]
    if key not in _said:
        _said.add(key)
        message = f"{key} is now called {new}; the old name works until metaloss {gone}"
        warnings.warn_explicit(message, FutureWarning, "metaloss", 0)
    return new
