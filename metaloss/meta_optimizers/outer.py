"""Names that engines had before metaloss 0.2. They work, with a warning, until metaloss 0.3."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

_HOME = "metaloss.meta_optimizers.engine"
_CLASSES = {"OuterRule": "Engine", "OuterState": "RuleState", "Rule": "Rule"}
_METHODS = {"outer_init": "rule_init", "outer_step": "rule_step"}


class OldMethods:
    """Lets an engine override the methods of the update rule by their old names."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Take a method with an old name for the one with the new name."""
        super().__init_subclass__(**options)
        for old in _METHODS.keys() & vars(cls).keys():
            _warn(f"{cls.__name__}.{old}", _METHODS[old])
            setattr(cls, _METHODS[old], vars(cls)[old])

    def outer_init(self, *given: Any) -> Any:
        """Call `rule_init`."""
        return self._renamed("outer_init")(self, *given)

    def outer_step(self, *given: Any, **named: Any) -> Any:
        """Call `rule_step`."""
        return self._renamed("outer_step")(self, *given, **named)

    def _renamed(self, old: str) -> Any:
        # An engine that overrides the old name arrives here by super(): what it overrides is next.
        new = _METHODS[old]
        _warn(old, new)
        return next(
            vars(cls)[new]
            for cls in type(self).__mro__
            if new in vars(cls) and vars(cls)[new] is not vars(cls).get(old)
        )


def __getattr__(name: str) -> Any:
    if name not in _CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _warn(f"{__name__}.{name}", f"{_HOME}.{_CLASSES[name]}")
    return getattr(import_module(_HOME), _CLASSES[name])


def _warn(old: str, new: str) -> None:
    message = f"{old} is now called {new}; the old name works until metaloss 0.3"
    warnings.warn(message, FutureWarning, stacklevel=3)
