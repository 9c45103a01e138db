"""Plain attributes of a model's submodules: state that is neither parameter nor buffer."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

import numpy as np
from torch import Tensor, nn

# Attributes of every module: registries, hooks, the mode.
INTERNAL = frozenset(vars(nn.Module())) | {"forward"}
SIMPLE = (int, float, str, bool, type(None))
_CONTAINERS = (list, dict, set, deque)
_MISSING = object()


def tensor_attributes(module: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """Return tensors in plain attributes of a module: (submodule, attribute) by full name."""
    found = {}
    for path, part in module.named_modules():
        for name, value in vars(part).items():
            if isinstance(value, Tensor):
                found[f"{path}.{name}" if path else name] = (part, name)
    return found


class Attributes:
    """A snapshot of the plain attributes of some modules, to compare with and to restore."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._before = [(part, _plain(part)) for part in modules]
        # Containers may be changed in place, so that their contents are copied.
        self._contents = {
            id(value): (value, _copied(value))
            for _, values in self._before
            for value in values.values()
            if isinstance(value, _CONTAINERS)
        }

    def changed(self) -> list[tuple[nn.Module, str, Any, Any]]:
        """Return (submodule, attribute, before, now) for every attribute that has changed."""
        found = []
        for part, before in self._before:
            now = _plain(part)
            for name in before.keys() | now.keys():
                old, new = before.get(name, _MISSING), now.get(name, _MISSING)
                if not self._alike(old, new):
                    found.append((part, name, self._as_it_was(old), new))
        return found

    def restore(self) -> None:
        """Restore the snapshot."""
        for part, before in self._before:
            values = vars(part)
            for name in _plain(part).keys() - before.keys():
                del values[name]
            values.update(before)
        for value, contents in self._contents.values():
            if not _same_contents(contents, value):
                value.clear()
                _refill(value, contents)

    def _as_it_was(self, value: Any) -> Any:
        if id(value) not in self._contents:
            return value
        contents = self._contents[id(value)][1]
        return dict(contents) if isinstance(value, dict) else contents

    def _alike(self, old: Any, new: Any) -> bool:
        if old is new:
            return id(old) not in self._contents or _same_contents(self._contents[id(old)][1], old)
        if isinstance(old, Tensor) or isinstance(new, Tensor):
            return False
        if isinstance(old, _CONTAINERS):
            return type(old) is type(new) and _same_contents(old, new)
        try:
            return type(old) is type(new) and bool(old == new)
        except Exception:  # not comparable
            return False


def overwritten(old: Any, new: Any) -> bool:
    """Return whether a value was only overwritten: tensors and arrays, also in containers.

    A container that grows, or a number that changes, carries information from pass to pass.
    """
    if isinstance(old, Tensor | np.ndarray):
        return isinstance(new, Tensor | np.ndarray)
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(overwritten(old[key], new[key]) for key in old)
    if isinstance(old, list | tuple | deque) and isinstance(new, list | tuple | deque):
        return len(old) == len(new) and all(map(overwritten, old, new))
    return old is new or (type(old) is type(new) and isinstance(old, SIMPLE) and old == new)


def _plain(part: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(part).items() if name not in INTERNAL}


def _copied(value: Any) -> Any:
    return list(value.items()) if isinstance(value, dict) else list(value)


def _refill(value: Any, contents: list[Any]) -> None:
    if isinstance(value, dict | set):
        value.update(contents)
    else:
        value.extend(contents)


def _same_contents(one: Any, other: Any) -> bool:
    a, b = (_copied(c) if isinstance(c, _CONTAINERS) else c for c in (one, other))
    if len(a) != len(b):
        return False
    return all(_same_item(x, y) for x, y in zip(a, b, strict=True))


def _same_item(one: Any, other: Any) -> bool:
    if isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other):
        return all(_same_item(x, y) for x, y in zip(one, other, strict=True))
    if one is other:
        return True
    return isinstance(one, SIMPLE) and type(one) is type(other) and one == other
