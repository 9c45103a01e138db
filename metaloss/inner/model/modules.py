"""Changes of a module's submodules for one pass, and checks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from metaloss.errors import MetalossError
from metaloss.inner.model.attributes import INTERNAL, SIMPLE

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)


def duplicate(module: nn.Module) -> nn.Module:
    """Return a deep copy.

    Raises:
        MetalossError: If a submodule has a computed tensor as attribute, as old ``weight_norm``.
    """
    try:
        return copy.deepcopy(module)
    except RuntimeError as error:
        for path, part in module.named_modules():
            for name, value in vars(part).items():
                if isinstance(value, Tensor) and value.grad_fn is not None:
                    raise MetalossError(
                        f"the model's part {path or 'itself'!r} has the computed tensor {name!r} "
                        "as a plain attribute, so that it cannot be copied (the old "
                        "torch.nn.utils.weight_norm does this): use "
                        "torch.nn.utils.parametrizations.weight_norm"
                    ) from error
        raise


def refuse_gradient_hooks(module: nn.Module) -> None:
    """Raise if a parameter has hooks: they would not get the gradients of a step."""
    for name, value in module.named_parameters():
        if value._backward_hooks or getattr(value, "_post_accumulate_grad_hooks", None):
            raise MetalossError(
                f"the model's parameter {name!r} has a hook on its gradient (register_hook), which "
                "would not be called: change the forward pass or the loss instead"
            )


def tied_names(module: nn.Module) -> dict[str, str]:
    """Return the further names of tied parameters and buffers: {name: the first name}.

    A tensor of a module that has two names itself is not tied. (``functional_call`` with
    ``tie_weights=True`` would replace it twice and not restore the old one.)
    """
    first: dict[int, str] = {}
    places: set[tuple[int, str]] = set()
    found = {}
    for path, part in module.named_modules(remove_duplicate=False):
        for own in (part._parameters, part._buffers):
            for leaf, value in own.items():
                place = (id(part), leaf)
                if value is None or place in places:
                    continue
                places.add(place)
                name = f"{path}.{leaf}" if path else leaf
                if id(value) in first:
                    found[name] = first[id(value)]
                else:
                    first[id(value)] = name
    return found


@contextmanager
def replaced_forwards(forwards: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Replace the ``forward`` methods of submodules; hooks still run.

    A submodule whose object has its own ``forward`` already is not changed.
    """
    replaced = [part for part in forwards if "forward" not in vars(part)]
    try:
        for part in replaced:
            vars(part)["forward"] = forwards[part]
        yield
    finally:
        for part in replaced:
            vars(part).pop("forward", None)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Set all submodules to evaluation mode, and restore their modes at the end."""
    trained = [part for part in module.modules() if part.training]
    try:
        for part in trained:
            part.training = False
        yield
    finally:
        for part in trained:
            part.training = True


class Fingerprint:
    """A value that changes if a module may compute something else than before.

    Objects are compared by identity. They are kept alive, so that no new object has the same
    ``id``.
    """

    __slots__ = ("_hash", "_kept", "_seen")

    def __init__(self, seen: tuple[Any, ...], kept: list[Any]) -> None:
        self._seen, self._kept = seen, kept
        self._hash: int | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fingerprint) and self._seen == other._seen

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(self._seen)
        return self._hash


def fingerprint(module: nn.Module, *, numbers: bool = False) -> Fingerprint:
    """Return the fingerprint of a module as it is now.

    It contains the submodules, their modes and hooks, flags and strings in their attributes, and
    for each parameter its shape, its type and whether it is trained.

    With ``numbers``, it also contains the numbers in attributes, not only whether they are 0, the
    contents of lists, tuples and dictionaries, and functions.
    """
    seen: list[Any] = []
    kept: list[Any] = []
    first: dict[int, int] = {}
    for path, part in module.named_modules(remove_duplicate=False):
        values = vars(part)
        kept.append(part)
        seen += (path, id(part), type(part), len(values["_parameters"]))
        for own in ("_parameters", "_buffers"):
            for name, value in values[own].items():
                if value is None:
                    seen.append(name)
                else:
                    place = first.setdefault(id(value), len(first))
                    seen += (name, place, value.shape, value.dtype, value.requires_grad)
        for own in _HOOKS:
            if values[own]:
                kept += values[own].values()
                seen.append((own, *map(id, values[own].values())))
        for name, value in values.items():
            if name in INTERNAL and name != "training":
                continue
            if numbers:
                seen.append((name, _content(value, kept)))
            elif type(value) in SIMPLE or isinstance(value, Tensor):
                seen.append((name, _sketch(value)))
        if "forward" in values:
            kept.append(values["forward"])
            seen.append(id(values["forward"]))
    return Fingerprint(tuple(seen), kept)


def _sketch(value: Any) -> Any:
    """Return a value for rough comparison. A number is replaced by whether it is 0."""
    if isinstance(value, Tensor):
        return Tensor
    return bool(value) if type(value) in (int, float) else value


def _content(value: Any, kept: list[Any]) -> Any:
    """Return a value for exact comparison, including the contents of containers."""
    if isinstance(value, Tensor) and value.grad_fn is not None:
        return Tensor
    if type(value) in SIMPLE:
        return type(value), value
    if isinstance(value, dict):
        pairs = value.items()
        return tuple((_content(key, kept), _content(one, kept)) for key, one in pairs)
    if isinstance(value, list | tuple):
        return tuple(_content(one, kept) for one in value)
    kept.append(value)
    return id(value)
