"""The saved state of a `Learner`, and its checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from metaloss.errors import MetalossError


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _are_tensors(value: Any) -> bool:
    return _is_mapping(value) and all(isinstance(one, Tensor) for one in value.values())


_NEEDED: dict[str, Callable[[Any], bool]] = {
    "loss": _is_mapping,
    "optimizer": _is_list,
    "outer": _is_list,
    "steps": lambda value: isinstance(value, int) and value >= 0,
}
# A state without the model has no "model", and older versions had fewer entries.
_KNOWN = _NEEDED | {
    "model": _is_mapping,
    "attributes": _are_tensors,
    "trained": _is_list,
    "parked": lambda value: _is_mapping(value) and all(map(_are_tensors, value.values())),
}


def copied(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a dictionary with copies of the tensors."""
    found: dict[str, Any] = pytree.tree_map_only(Tensor, torch.clone, dict(state))
    return found


def checked_state(
    state: Mapping[str, Any], model: nn.Module, loss: nn.Module, trained: list[str]
) -> None:
    """Raise if a saved state does not belong to this model and loss."""
    _check_entries(state)
    for name, module in (("model", model), ("loss", loss)):
        if name not in state:  # saved without the model
            continue
        own, given = module.state_dict(), state[name]
        if odd := own.keys() ^ given.keys():
            first = min(odd)
            whose = "state" if first in given else name
            raise MetalossError(f"the state is of another {name}: only the {whose} has {first!r}")
        for key, value in own.items():
            if isinstance(value, Tensor) and not _fits(given[key], value):
                raise MetalossError(
                    f"the state is of another {name}: {key!r} is {_described(given[key])}, "
                    f"expected {_described(value)}"
                )
    if "trained" in state and list(state["trained"]) != trained:
        odd_names = sorted(set(map(str, state["trained"])) ^ set(trained))
        raise MetalossError(
            f"the state was saved with other parameters frozen ({', '.join(odd_names[:3])}): set "
            "requires_grad as it was, then load"
        )


def refilled(tree: Any, leaves: list[Tensor]) -> Any:
    """Return a pytree like ``tree`` with copies of ``leaves``, of its types and on its device.

    Raises:
        MetalossError: If their number, shapes or kinds of numbers differ.
    """
    own, spec = pytree.tree_flatten(tree)
    if len(own) != len(leaves) or not all(map(_fits, leaves, own)):
        raise MetalossError(
            f"the state has {len(leaves)} values; expected {len(own)} with the shapes and "
            "types of this learner: it was made with another optimizer or model"
        )
    copies = [leaf.to(like, copy=True) for leaf, like in zip(leaves, own, strict=True)]
    return pytree.tree_unflatten(copies, spec)


def _check_entries(state: Any) -> None:
    """Raise if an entry is missing, or of another type than in ``Learner.state_dict()``."""
    for entry in _NEEDED:
        if not isinstance(state, Mapping) or entry not in state:
            raise MetalossError(
                f"the state has no entry {entry!r}: expected Learner.state_dict()'s"
            )
    for entry, is_right in _KNOWN.items():
        if entry in state and not is_right(state[entry]):
            raise MetalossError(
                f"the entry {entry!r} of the state is {_described(state[entry])}: expected that of "
                "Learner.state_dict()"
            )


def _fits(given: Any, own: Tensor) -> bool:
    """Return whether a value can be copied into a tensor without loss, but for rounding."""
    return (
        isinstance(given, Tensor)
        and given.shape == own.shape
        and given.is_floating_point() == own.is_floating_point()
        and given.is_complex() == own.is_complex()
        and given.layout is own.layout
        and not given.is_meta
    )


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        on = " without values" if value.is_meta else ""
        return f"a tensor{on} of shape {tuple(value.shape)} and type {value.dtype}"
    is_short = isinstance(value, int | float)
    return str(value) if is_short else f"a {type(value).__name__}"
