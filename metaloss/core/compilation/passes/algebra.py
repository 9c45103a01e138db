"""Removes products with zeros from a traced step, and reorders chains of products.

The results are the same up to rounding if the weights are finite. Such products come from
forward-mode differentiation of linear layers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from metaloss.core.compilation.passes.aliasing import SAME, Written

aten = torch.ops.aten

# Operations that return zeros for zeros.
_SHAPES = (aten.alias, aten.detach, aten.expand, aten.permute, aten.t, aten.unsqueeze, aten.view)
# Operations that only rearrange values, and those that multiply all values by one factor.
_MOVES = (*SAME, aten.t.default)
_SCALES = (aten.neg.default, aten.mul.Tensor, aten.div.Tensor)


def simplify_products(graph: fx.Graph) -> None:
    """Remove products with zeros from a traced graph, and reorder chains of products, in place.

    **Zeros**: forward mode multiplies the weights of a model's first layer with the tangent of its
    inputs, which is zero.

    **Chains**: in an online step, the direction in the weights of a linear layer is a product, s ·
    δ'ᵀ x', of the meta-batch, and forward mode computes s · x (x'ᵀ δ'). If a batch has fewer rows
    than the layer has units, s · (x x'ᵀ) δ' is cheaper, and has no matrix of the weights' size.

    Values that a model changes in place are not touched.

    Args:
        graph: The result of `make_fx`; every node has the shape and type of its value.
    """
    written = Written(graph)
    _drop_zeros(graph, written)
    for node in list(graph.nodes):
        if node.target is aten.mm.default:
            _shorten(graph, node, written)
    graph.eliminate_dead_code()
    graph.lint()


def _drop_zeros(graph: fx.Graph, written: Written) -> None:
    zeros: set[Any] = set()
    products: list[fx.Node] = []
    for node in graph.nodes:
        if written.among(node):
            continue
        if node.target is aten.zeros.default or (
            getattr(node.target, "overloadpacket", None) in _SHAPES and node.args[0] in zeros
        ):
            zeros.add(node)
        elif _multiplies(node) and not zeros.isdisjoint(node.args[:2]):
            zeros.add(node)
            products.append(node)
        elif node.target is aten.add.Tensor and not node.kwargs:
            for nothing, other in (node.args, reversed(node.args)):
                if nothing in zeros and _alike(other, node) and not written.among(other):
                    node.replace_all_uses_with(other)
                    break
    graph.eliminate_dead_code()
    for node in products:
        # A product that is still used, for example added to a bias, is replaced by a contiguous
        # tensor of zeros.
        if node.users and _value(node).is_contiguous():
            value = _value(node)
            options: dict[str, Any] = {"dtype": value.dtype, "device": value.device}
            with graph.inserting_before(node):
                nothing = graph.call_function(aten.zeros.default, (list(value.shape),), options)
            nothing.meta["val"] = value
            node.replace_all_uses_with(nothing)
    graph.eliminate_dead_code()


def _multiplies(node: fx.Node) -> bool:
    without_bias = node.target is aten.convolution.default and node.args[2] is None
    return without_bias or node.target is aten.mm.default


def _alike(argument: Any, node: fx.Node) -> bool:
    if not isinstance(argument, fx.Node) or argument.op == "placeholder":
        return False
    one, other = _value(argument), _value(node)
    return (one.shape, one.stride(), one.dtype) == (other.shape, other.stride(), other.dtype)


def _shorten(graph: fx.Graph, outer: fx.Node, written: Written) -> None:
    """Replace A (s · B C) by s · (A B) C if that is cheaper."""
    node: Any
    left, node = outer.args
    passed: list[fx.Node] = []
    while node.target is not aten.mm.default:
        carried = _carried(node)
        if carried is None or len(node.users) > 1:
            return
        passed.append(node)
        node = carried
    # It has another use, or was changed in place after it was computed.
    read = [given for one in (*passed, node) for given in one.all_input_nodes]
    if len(node.users) > 1 or written.among(left, node, *read):
        return
    turned = sum(one.target is aten.t.default for one in passed) % 2 == 1
    (rows, width), (_, columns), between = _shape(left), _shape(outer), _shape(node.args[0])[1]
    as_written = width * between * columns + rows * width * columns
    if rows * width * between + rows * between * columns >= as_written:
        return
    with graph.inserting_before(outer):
        first, second = node.args
        if turned:
            first, second = (call(graph, aten.t.default, one) for one in (second, first))
        result = call(graph, aten.mm.default, left, first)
        result = call(graph, aten.mm.default, result, second)
        for one in reversed(passed):
            if one.target in _SCALES:
                carried = _carried(one)
                given = [result if argument is carried else argument for argument in one.args]
                result = call(graph, one.target, *given)
    outer.replace_all_uses_with(result)


def _carried(node: fx.Node) -> Any:
    """Return the input that a node rearranges or scales; None for other nodes."""
    if node.target in _MOVES:
        return node.args[0]
    if node.target not in _SCALES:
        return None
    whole = [one for one in node.args if isinstance(one, fx.Node) and _value(one).dim() > 0]
    divides = node.target is aten.div.Tensor and whole != [node.args[0]]
    if len(whole) != 1 or divides or _value(whole[0]).dtype != _value(node).dtype:
        return None
    return whole[0]


def call(graph: fx.Graph, target: Any, *arguments: Any) -> fx.Node:
    """Insert and return the result of an operation, with its shape and type."""
    node = graph.call_function(target, arguments)
    node.meta["val"] = target(*pytree.tree_map_only(fx.Node, _value, arguments))
    return node


def _value(node: fx.Node) -> torch.Tensor:
    value: torch.Tensor = node.meta["val"]
    return value


def _shape(node: Any) -> torch.Size:
    return _value(node).shape
