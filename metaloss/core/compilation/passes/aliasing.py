"""Which values of a traced graph are changed in place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

aten = torch.ops.aten

# Operations that return their input under another name.
SAME = (aten.alias.default, aten.detach.default)
# They change their running statistics, although their schema does not say so.
_SILENT = (
    aten.native_batch_norm,
    aten.cudnn_batch_norm,
    aten.miopen_batch_norm,
    aten.batch_norm_update_stats,
    aten.batch_norm_gather_stats,
    aten.batch_norm_gather_stats_with_counts,
)
_RUNNING = ("running_mean", "running_var")


class Written:
    """Which values share their memory with a value that is changed in place.

    Args:
        graph: The result of `make_fx`; every node has a meta value, and the meta values of views
            share a storage.
    """

    def __init__(self, graph: fx.Graph) -> None:
        self._memory: set[int] = set()
        for node in graph.nodes:
            if not isinstance(node.target, torch._ops.OpOverload):
                continue
            silent = node.target.overloadpacket in _SILENT
            declared = node.target._schema.arguments
            given = dict(zip((one.name for one in declared), node.args, strict=False))
            given |= node.kwargs
            for argument in declared:
                alias = argument.alias_info
                writes = alias is not None and alias.is_write
                if argument.name in given and (writes or (silent and argument.name in _RUNNING)):
                    for value in pytree.tree_leaves(given[argument.name]):
                        self._memory |= _places(value)

    def among(self, *values: Any) -> bool:
        """Return whether any of the nodes is changed in place, or is a view of such a node."""
        return any(not self._memory.isdisjoint(_places(value)) for value in values)


def source(node: Any) -> Any:
    """Return the node that a value comes from, whatever other names it has."""
    while node.target in SAME:
        node = node.args[0]
    return node


def memory(node: fx.Node) -> dict[int, int]:
    """Return the storages of a node's value, and the bytes of each."""
    tensors = pytree.tree_leaves(node.meta.get("val"))
    strided = (one for one in tensors if isinstance(one, Tensor) and one.layout is torch.strided)
    return {one.untyped_storage()._cdata: one.untyped_storage().nbytes() for one in strided}


def _places(value: Any) -> set[int]:
    return set(memory(value)) if isinstance(value, fx.Node) else set()
