"""Inputs of several tensors, such as tokens and a mask, which are handled like one tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree


class Fields:
    """A dictionary or tuple of tensors (B, ...) with the same rows, in the place of one tensor.

    Args:
        tree: The tensors; dictionaries and tuples may be nested.

    Example:
        >>> inputs = Fields({"tokens": torch.zeros(4, 5), "mask": torch.ones(4, 5)})
        >>> len(inputs), inputs[:2].tree["mask"].shape
        (4, torch.Size([2, 5]))
    """

    def __init__(self, tree: Any) -> None:
        self.tree = tree

    def __len__(self) -> int:
        return len(leaves(self)[0])

    def __getitem__(self, rows: Any) -> Fields:
        return pytree.tree_map(lambda value: value[rows], self)

    def to(self, *given: Any, **options: Any) -> Fields:
        """Return the fields on another device, as ``Tensor.to`` does."""
        return pytree.tree_map(lambda value: value.to(*given, **options), self)

    def split(self, size: int) -> list[Fields]:
        """Return blocks of ``size`` rows."""
        return [self[begin : begin + size] for begin in range(0, len(self), size)]

    @property
    def device(self) -> torch.device:
        """The device of the first field."""
        return leaves(self)[0].device


pytree.register_pytree_node(Fields, lambda held: ([held.tree], None), lambda held, _: Fields(*held))


def as_inputs(value: Any) -> Any:
    """Return a dictionary, tuple or list of tensors as fields, and anything else as it is."""
    return Fields(_plain(value)) if isinstance(value, Mapping | tuple | list) else value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    return tuple(map(_plain, value)) if isinstance(value, tuple | list) else value


def leaves(inputs: Any) -> list[Tensor]:
    """Return the tensors of inputs."""
    return pytree.tree_leaves(inputs)


def named(inputs: Any) -> dict[str, Tensor]:
    """Return the tensors of inputs by the names of their places.

    Example:
        >>> list(named(Fields({"a": torch.zeros(2), "b": (torch.zeros(2),)})))
        ['a', 'b.0']
        >>> list(named(torch.zeros(2)))
        ['']
    """
    form = getattr(inputs, "form", inputs)  # of rows that are read lazily
    tree = form.tree if isinstance(form, Fields) else inputs
    return {
        ".".join(str(getattr(key, "key", getattr(key, "idx", key))) for key in path): leaf
        for path, leaf in pytree.tree_leaves_with_path(tree)
    }


def shape_of(inputs: Any) -> Any:
    """Return the shape of one row; of fields, their shapes in the form of the fields.

    Example:
        >>> shape_of(torch.zeros(4, 3)), shape_of(Fields({"a": torch.zeros(4, 3)}))
        ((3,), {'a': (3,)})
    """
    form = getattr(inputs, "form", inputs)
    if isinstance(form, Fields):
        return pytree.tree_map(lambda value: tuple(value.shape[1:]), form.tree)
    return tuple(inputs.shape[1:])


def shape_from_lists(content: Any) -> Any:
    """Return the shape of `shape_of` from JSON, which has lists in the place of tuples.

    Example:
        >>> shape_from_lists({"a": [3]})
        {'a': (3,)}
    """
    if isinstance(content, dict):
        return {name: shape_from_lists(one) for name, one in content.items()}
    return tuple(map(shape_from_lists, content)) if isinstance(content, list) else content
