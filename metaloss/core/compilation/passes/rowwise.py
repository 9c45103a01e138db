"""Which operations compute each row of their result from the same row of their inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import getitem
from typing import Any

import torch
from torch import Tensor, fx

from metaloss.core.compilation.passes.aliasing import SAME

aten = torch.ops.aten

# What is worth reusing.
PRODUCTS = (
    aten.mm.default,
    aten.addmm.default,
    aten.bmm.default,
    aten.baddbmm.default,
    aten.convolution.default,
    aten._scaled_dot_product_flash_attention_for_cpu.default,
)

# Whether a node keeps to the rows, if these of its inputs are values of rows.
_Check = Callable[[Any, set[fx.Node]], bool]


def keeps_rows(node: Any, parts: set[fx.Node], rows: int) -> bool:
    """Return whether each row of a node's value depends on the same rows of its inputs alone.

    Rows are the first dimension, alone or with positions within each row (M · T, *). Operations
    that move them to another dimension do not keep them.

    Args:
        node: A node of a traced graph.
        parts: Its inputs that are values of M rows. The others are the same for all rows.
        rows: M.
    """
    values = [one.meta["val"] for one in parts]
    values += node.meta["val"] if isinstance(node.meta["val"], list | tuple) else [node.meta["val"]]
    tensors = [value for value in values if isinstance(value, Tensor)]
    if any(value.dim() == 0 or len(value) % rows for value in tensors):
        return False
    if node.target is getitem or node.target in SAME:
        return True
    if node.target in _CHECKS:
        return _CHECKS[node.target](node, parts)
    tags = getattr(node.target, "tags", ())
    if torch.Tag.nondeterministic_seeded in tags or torch.Tag.pointwise not in tags:
        return False
    return _elementwise(node, parts)


def _elementwise(node: Any, parts: set[fx.Node]) -> bool:
    """Whether parts are aligned with the result, and the others are repeated along its rows."""
    shape = node.meta["val"].shape
    for one in node.all_input_nodes:
        own = one.meta["val"].shape
        aligned = len(own) == len(shape) and own[0] == shape[0]
        repeated = len(own) < len(shape) or own[0] == 1
        if not (aligned if one in parts else repeated):
            return False
    return True


def _first_alone(node: Any, parts: set[fx.Node]) -> bool:
    return parts == {node.args[0]}


def _second_alone(node: Any, parts: set[fx.Node]) -> bool:
    return parts == {node.args[1]} and len(_shape(node.args[0])) < 2


def _all(node: Any, parts: set[fx.Node]) -> bool:
    lengths = {_shape(one)[0] for one in node.all_input_nodes}
    return parts == set(node.all_input_nodes) and lengths == {_shape(node.args[0])[0]}


def _attention(node: Any, parts: set[fx.Node]) -> bool:
    without_dropout = len(node.args) < 4 or node.args[3] == 0
    return without_dropout and _all(node, parts)


def _images(node: Any, parts: set[fx.Node]) -> bool:
    return _first_alone(node, parts) and len(_shape(node.args[0])) == 4


def _over(position: int) -> _Check:
    """Return whether the dimensions in an argument do not contain the rows."""

    def check(node: Any, parts: set[fx.Node]) -> bool:
        dims = node.args[position] if len(node.args) > position else 0
        if dims is None or dims == []:
            return False
        every: Iterable[int] = dims if isinstance(dims, list | tuple) else [dims]
        size = len(_shape(node.args[0]))
        return _first_alone(node, parts) and all(dim % size for dim in every)

    return check


def _joined(node: Any, parts: set[fx.Node]) -> bool:
    dim = node.args[1] if len(node.args) > 1 else 0
    lengths = {_shape(one)[0] for one in node.all_input_nodes}
    inside = dim % len(_shape(node)) != 0
    return inside and parts == set(node.all_input_nodes) and len(lengths) == 1


def _unsqueezed(node: Any, parts: set[fx.Node]) -> bool:
    return node.args[1] % len(_shape(node)) != 0


def _expanded(node: Any, parts: set[fx.Node]) -> bool:
    own, shape = _shape(node.args[0]), _shape(node)
    return len(own) == len(shape) and own[0] == shape[0]


def _permuted(node: Any, parts: set[fx.Node]) -> bool:
    return node.args[1][0] % len(_shape(node)) == 0


def _transposed(node: Any, parts: set[fx.Node]) -> bool:
    return all(dim % len(_shape(node)) for dim in node.args[1:3])


def _padded(node: Any, parts: set[fx.Node]) -> bool:
    return len(node.args[1]) < 2 * len(_shape(node))


def _layer_norm(node: Any, parts: set[fx.Node]) -> bool:
    return _first_alone(node, parts) and len(node.args[1]) < len(_shape(node.args[0]))


def _group_norm(node: Any, parts: set[fx.Node]) -> bool:
    return _first_alone(node, parts) and node.args[3] == _shape(node.args[0])[0]


def _looked_up(node: Any, parts: set[fx.Node]) -> bool:
    return parts == {node.args[1]}


def _shape(node: Any) -> torch.Size:
    shape: torch.Size = node.meta["val"].shape
    return shape


_CHECKS: dict[Any, _Check] = {
    aten.convolution.default: _first_alone,
    aten.mm.default: _first_alone,
    aten.addmm.default: _second_alone,
    aten.bmm.default: _all,
    aten._scaled_dot_product_flash_attention_for_cpu.default: _attention,
    aten.avg_pool2d.default: _images,
    aten._adaptive_avg_pool2d.default: _images,
    aten.max_pool2d_with_indices.default: _images,
    aten.native_layer_norm.default: _layer_norm,
    aten.native_group_norm.default: _group_norm,
    aten._softmax.default: _over(1),
    aten._log_softmax.default: _over(1),
    aten.mean.dim: _over(1),
    aten.sum.dim_IntList: _over(1),
    aten.amax.default: _over(1),
    aten.var.correction: _over(1),
    aten.select.int: _over(1),
    aten.slice.Tensor: _over(1),
    aten.split.Tensor: _over(2),
    aten.unbind.int: _over(1),
    aten.squeeze.dim: _over(1),
    aten.cat.default: _joined,
    aten.stack.default: _joined,
    aten.unsqueeze.default: _unsqueezed,
    aten.expand.default: _expanded,
    aten.permute.default: _permuted,
    aten.transpose.int: _transposed,
    aten.constant_pad_nd.default: _padded,
    aten.embedding.default: _looked_up,
    # Values keep their order, and so do rows, whose first dimension is checked above.
    aten.view.default: _first_alone,
    aten._unsafe_view.default: _first_alone,
    aten.reshape.default: _first_alone,
    aten._to_copy.default: _first_alone,
    aten.clone.default: _first_alone,
}
