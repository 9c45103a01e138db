"""Which values of a traced graph are written to in place."""

from __future__ import annotations

from operator import getitem
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

aten = torch.ops.aten

# Their running statistics are written to, though the declaration does not say so.
_SILENT = (aten.native_batch_norm, aten.cudnn_batch_norm, aten.miopen_batch_norm)
_RUNNING = ("running_mean", "running_var")


class Written:
    """Which values share their memory with something that is written to."""

    def __init__(self, graph: fx.Graph) -> None:
        self._origins: dict[fx.Node, fx.Node] = {}
        self._written: set[fx.Node] = set()
        for node in graph.nodes:
            silent = getattr(node.target, "overloadpacket", None) in _SILENT
            for name, value, argument in _arguments(node):
                if silent and name in _RUNNING and value is not None:
                    self._written.add(self._origin(value))
                alias = argument.alias_info
                if alias is None:
                    continue
                shared = pytree.tree_leaves(value)
                if alias.is_write:
                    self._written.update(self._origin(one) for one in shared)
                if name == "out" or not isinstance(value, fx.Node):
                    continue
                if any(one.alias_info is not None for one in node.target._schema.returns):
                    self._origins[node] = self._origin(value)
            if node.target is getitem:
                self._origins[node] = self._origin(node.args[0])

    def _origin(self, node: fx.Node) -> fx.Node:
        return self._origins.get(node, node)

    def among(self, *values: Any) -> bool:
        """Return whether any of some nodes is, or what they are views of."""
        nodes = [value for value in values if isinstance(value, fx.Node)]
        return any(self._origin(node) in self._written for node in nodes)


def _arguments(node: fx.Node) -> list[tuple[str, Any, Any]]:
    """Return name, value and declaration of an operation's arguments."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return []
    declared = node.target._schema.arguments
    given = dict(zip((one.name for one in declared), node.args, strict=False)) | node.kwargs
    return [(one.name, given[one.name], one) for one in declared if one.name in given]
