"""Collectives that return what processes exchange; a program holds those that write nowhere.

A traced graph cannot hold collectives that write into their arguments. Inside one, PyTorch's
functional collectives compute the same.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

Group = dist.ProcessGroup | None


def gathered(block: Tensor, size: int, group: Group) -> Tensor:
    """Return the blocks (size, ...) of all processes, which have one shape."""
    if traced():
        return _functional("all_gather_into_tensor", block, size, _name(group)).view(
            size, *block.shape
        )
    blocks = block.new_empty(size, *block.shape)
    dist.all_gather(list(blocks), block.contiguous(), group=group)
    return blocks


def summed(values: Tensor, group: Group) -> Tensor:
    """Return the sum over all processes. In eager mode it is written into ``values``."""
    if traced():
        return _functional("all_reduce", values, "sum", _name(group))
    dist.all_reduce(values, group=group)
    return values


def broadcast(values: Tensor, group: Group) -> Tensor:
    """Return the values of process 0. In eager mode they are written into ``values``."""
    if traced():
        return _functional("broadcast", values, 0, _name(group))
    dist.broadcast(values, 0, group=group)
    return values


def traced() -> bool:
    """Return whether what is computed becomes part of a program."""
    # Fake tensors and make_fx push such a mode.
    return torch._C._len_torch_dispatch_stack() > 0


def _functional(name: str, values: Tensor, *given: object) -> Tensor:
    # They have their shapes only after this import, which takes a moment.
    import torch.distributed._functional_collectives

    operations = torch.ops._c10d_functional
    found: Tensor = operations.wait_tensor(getattr(operations, name)(values.contiguous(), *given))
    return found


def _name(group: Group) -> str:
    return (group or dist.group.WORLD).group_name  # type: ignore[union-attr]
