"""The saved state of a `Learner`, and its checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from metaloss.errors import MetalossError


def copied(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a dictionary with copies of the tensors."""
    found: dict[str, Any] = pytree.tree_map_only(Tensor, torch.clone, dict(state))
    return found


def checked_state(
    state: Mapping[str, Any], model: nn.Module, loss: nn.Module, trained: list[str]
) -> None:
    """Raise if a saved state does not belong to this model and loss."""
    for entry in ("loss", "optimizer", "outer", "steps"):
        if not isinstance(state, Mapping) or entry not in state:
            raise MetalossError(
                f"the state has no entry {entry!r}: expected Learner.state_dict()'s"
            )
    for name, module in (("model", model), ("loss", loss)):
        if name not in state:  # saved without the model
            continue
        own, given = module.state_dict(), state[name]
        if odd := own.keys() ^ given.keys():
            first = min(odd)
            whose = "state" if first in given else name
            raise MetalossError(f"the state is of another {name}: only the {whose} has {first!r}")
        for key, value in own.items():
            if isinstance(value, Tensor) and value.shape != given[key].shape:
                raise MetalossError(
                    f"the state is of another {name}: {key!r} has shape {tuple(given[key].shape)}, "
                    f"expected {tuple(value.shape)}"
                )
    if "trained" in state and list(state["trained"]) != trained:
        odd_names = sorted(set(state["trained"]) ^ set(trained))
        raise MetalossError(
            f"the state was saved with other parameters frozen ({', '.join(odd_names[:3])}): set "
            "requires_grad as it was, then load"
        )


def refilled(tree: Any, leaves: list[Tensor]) -> Any:
    """Return a pytree like ``tree`` with copies of ``leaves``.

    Raises:
        MetalossError: If their number or shapes differ.
    """
    own, spec = pytree.tree_flatten(tree)
    if len(own) != len(leaves) or any(a.shape != b.shape for a, b in zip(own, leaves, strict=True)):
        raise MetalossError(
            f"the state has {len(leaves)} values; expected {len(own)} with the shapes of this "
            "learner: it was made with another optimizer or model"
        )
    return pytree.tree_unflatten([leaf.clone() for leaf in leaves], spec)
