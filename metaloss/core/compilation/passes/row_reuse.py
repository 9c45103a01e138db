"""Takes some rows of what a traced step has computed of all rows, instead of computing them again.

With ``meta_optimizer.rows=0.25`` the walk back runs the network on a quarter of the training rows,
at the weights of the inner step, which ran it on all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from metaloss.core.compilation.passes.algebra import call
from metaloss.core.compilation.passes.aliasing import SAME, Written, memory, source
from metaloss.core.compilation.passes.cse import KEPT_BYTES
from metaloss.core.compilation.passes.rowwise import PRODUCTS, keeps_rows

aten = torch.ops.aten

# Operations whose second argument is a shape, which begins with the rows.
_SHAPED = (
    aten.view.default,
    aten._unsafe_view.default,
    aten.reshape.default,
    aten.expand.default,
)


class _Part(NamedTuple):
    """A value is rows ``rows`` (M,) of the B rows of ``whole``; whether a product is in it."""

    whole: fx.Node
    rows: fx.Node
    total: int
    costly: bool


def reuse_rows(graph: fx.Graph, *, kept_bytes: int = KEPT_BYTES) -> None:
    """Replace values of some rows by those rows of the same values of all rows, in place.

    Only values that took a product or a convolution are replaced. Operations that look across rows
    end the chain. The results are the same up to the rounding of products of fewer rows.

    Args:
        graph: The result of `make_fx`, after `merge_repeated`.
        kept_bytes: The largest number of bytes of whole values to keep for it.
    """
    written = Written(graph)
    order = {node: number for number, node in enumerate(graph.nodes)}
    parts: dict[fx.Node, _Part] = {}
    for node in graph.nodes:
        if node.op != "call_function" or written.among(node, *node.all_input_nodes):
            continue
        part = _drawn(node) or _matched(node, parts, order)
        if part is not None and not written.among(part.whole):
            parts[node] = part
    for node, part in parts.items():
        if not part.costly or not isinstance(node.meta["val"], Tensor):
            continue
        if all(user in parts and parts[user].costly for user in node.users):
            continue
        cost = sum(memory(part.whole).values())
        if cost <= kept_bytes:
            kept_bytes -= cost
            node.replace_all_uses_with(_taken(graph, node, part))
    for node in reversed(parts):
        if not node.users:  # attention may draw random numbers, so that it is not dead code
            graph.erase_node(node)
    graph.eliminate_dead_code()
    graph.lint()


def _drawn(node: Any) -> _Part | None:
    """Return what is known of ``x[rows]``; None for another node."""
    if node.target is not aten.index.Tensor:
        return None
    whole, (rows, *others) = node.args
    drawn = isinstance(rows, fx.Node) and rows.meta["val"].dim() == 1 and not others
    if not drawn or rows.meta["val"].dtype is not torch.int64:
        return None
    return _Part(source(whole), rows, len(whole.meta["val"]), False)


def _matched(node: fx.Node, parts: dict[fx.Node, _Part], order: dict[fx.Node, int]) -> _Part | None:
    """Return what is known of a node of parts; None if no node does the same to all rows."""
    given = [one for one in node.all_input_nodes if one in parts]
    if not given:
        return None
    first = parts[given[0]]
    if any(parts[one].rows is not first.rows for one in given):
        return None
    count = len(first.rows.meta["val"])
    if not keeps_rows(node, set(given), count):
        return None
    costly = any(parts[one].costly for one in given) or node.target in PRODUCTS
    for other in _users(first.whole):
        if order[other] < order[node] and _alike(node, other, parts, (count, first.total)):
            return _Part(source(other), first.rows, first.total, costly)
    return None


def _alike(
    node: fx.Node, other: fx.Node, parts: dict[fx.Node, _Part], rows: tuple[int, int]
) -> bool:
    """Return whether a node does to all rows what another one does to some."""
    few, every = rows

    def same(one: Any, two: Any) -> bool:
        if isinstance(one, fx.Node) and isinstance(two, fx.Node):
            return source(two) is (parts[one].whole if one in parts else source(one))
        if isinstance(one, list | tuple) and isinstance(two, list | tuple):
            return len(one) == len(two) and all(map(same, one, two))
        return type(one) is type(two) and repr(one) == repr(two)

    if node.target is not other.target or node.kwargs.keys() != other.kwargs.keys():
        return False
    if not same(_without_count(node, few), _without_count(other, every)):
        return False
    if not all(same(value, other.kwargs[name]) for name, value in node.kwargs.items()):
        return False
    values = (pytree.tree_leaves(one.meta["val"]) for one in (node, other))
    return all(
        a.dtype is b.dtype and a.shape[1:] == b.shape[1:] and len(a) * every == len(b) * few
        for a, b in zip(*values, strict=True)
        if isinstance(a, Tensor)
    )


def _without_count(node: Any, rows: int) -> list[Any]:
    """Return the arguments with what stands for ``rows`` rows as positions in each of them."""
    args = list(node.args)
    if node.target in _SHAPED and args[1] and type(args[1][0]) is int:
        first, *rest = args[1]
        args[1] = [_per_row(first, rows), *rest]
    elif node.target is aten.native_group_norm.default:
        args[3] = _per_row(args[3], rows)
    return args


def _per_row(count: int, rows: int) -> Any:
    return count if count < 0 or count % rows else ("rows times", count // rows)


def _taken(graph: fx.Graph, node: fx.Node, part: _Part) -> fx.Node:
    """Insert and return the rows of the whole value, in the shape of the node's."""
    value, few = node.meta["val"], len(part.rows.meta["val"])
    within = len(value) // few
    with graph.inserting_before(node):
        if within == 1:
            return call(graph, aten.index.Tensor, part.whole, [part.rows])
        rest = list(value.shape[1:])
        whole = call(graph, aten.reshape.default, part.whole, [part.total, within, *rest])
        found = call(graph, aten.index.Tensor, whole, [part.rows])
        return call(graph, aten.reshape.default, found, list(value.shape))


def _users(node: fx.Node) -> Iterator[fx.Node]:
    """Yield the nodes that use a value, under any of its names."""
    for user in node.users:
        yield user
        if user.target in SAME:
            yield from _users(user)
