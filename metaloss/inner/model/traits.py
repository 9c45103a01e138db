"""What a model's forward pass does beside computing its outputs: found out once, by two passes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from metaloss.errors import MetalossError
from metaloss.inner.model.attributes import Attributes
from metaloss.inner.model.randomness import Source, drawn_from, seeded, sources

# Between two passes over the same numbers: sums on a GPU are rounded as they come.
_ROUNDING = 1e-4


_REGISTRIES = ("_parameters", "_buffers", "_modules")


class Pass(NamedTuple):
    """One forward pass: outputs; θ as given; buffers, as (given, left); the inputs given."""

    outputs: Tensor
    params: dict[str, Tensor]
    buffers: dict[str, tuple[Tensor, Tensor]]
    inputs: Any


class Traits(NamedTuple):
    """What was found.

    Attributes:
        foreign: Random numbers that it draws outside of ``nn.Dropout``, by source.
        touched: Parts whose plain attributes it writes: they are put back after every pass.
        writes_inputs: Whether it changes its inputs in place: it is given copies.
        writes_params: Names of parameters that it changes in place.
    """

    foreign: tuple[Source, ...]
    touched: tuple[nn.Module, ...]
    writes_inputs: bool
    writes_params: tuple[str, ...]


def examined(
    module: nn.Module,
    carried: Iterable[str],
    one_pass: Callable[[], Pass],
) -> Traits:
    """Run a forward pass twice; return what it does, or refuse what cannot be repeated.

    Args:
        module: The model.
        carried: Full names of the tensors in plain attributes that are part of its state.
        one_pass: Runs it, with the same numbers at every call.

    Raises:
        MetalossError: If two passes over the same rows with the same weights differ, or if the
            model keeps count of its passes where only ordinary Python sees it.
    """
    names = {part: path for path, part in module.named_modules()}
    parts = list(names)
    carried = set(carried)
    before = Attributes(parts)
    begun_with = [(part, own, dict(vars(part)[own])) for part in parts for own in _REGISTRIES]
    every = sources(parts)
    states = [source.get() for source in every]
    try:
        with torch.no_grad(), seeded(every, 1):
            begun = [source.get() for source in every]
            outputs, params, buffers, inputs = one_pass()
            foreign = drawn_from(every, begun)
        for part, own, entries in begun_with:
            if made := vars(part)[own].keys() ^ entries.keys():
                vars(part)[own].clear()
                vars(part)[own].update(entries)
                raise MetalossError(
                    f"the model's part {names[part] or 'itself'!r} makes or removes {min(made)!r} "
                    "in its forward pass: run the model once on a batch first"
                )
        changed = before.changed()
        touched = {part: None for part, *_ in changed}
        after = Attributes(parts)
        with torch.no_grad(), seeded(every, 1):
            again, *_ = one_pass()
        for part, name, old, new in after.changed():
            full = f"{names[part]}.{name}" if names[part] else name
            if full in carried or (isinstance(old, Tensor) and isinstance(new, Tensor)):
                continue
            raise MetalossError(
                f"the model's part {names[part] or 'itself'!r} changes its attribute {name!r} in "
                "every forward pass, and a step here takes several passes: keep what is carried "
                "from pass to pass in a buffer (register_buffer)"
            )
    finally:
        before.restore()
        for source, state in zip(every, states, strict=True):
            source.set(state)
    for name, (old, new) in buffers.items():
        if old.shape != new.shape:
            raise MetalossError(
                f"the model changes the shape of its buffer {name!r} in its forward pass, from "
                f"{tuple(old.shape)} to {tuple(new.shape)}: expected buffers of fixed shape"
            )
    if not _close(outputs, again):
        raise MetalossError(
            "the model's outputs differ between two forward passes over the same rows with the "
            "same weights and the same random state: keep what it carries from pass to pass in a "
            "buffer (register_buffer), and draw random numbers with torch, numpy, random, or a "
            "generator in an attribute of the model"
        )
    return Traits(
        foreign=tuple(foreign),
        touched=tuple(touched),
        writes_inputs=any(leaf._version for leaf in _tensors(inputs)),
        writes_params=tuple(name for name, value in params.items() if value._version),
    )


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def _close(one: Any, other: Any) -> bool:
    for a, b in zip(_tensors(one), _tensors(other), strict=True):
        if a.shape != b.shape:
            return False
        size = b.abs().to(torch.float64) if not b.is_complex() else b.abs()
        finite = torch.isfinite(a) & torch.isfinite(b)
        gap = (a - b).abs().where(finite, 0).max() if a.numel() else 0.0
        if float(gap) > _ROUNDING * float(size.where(finite, 0).max() if b.numel() else 1.0):
            return False
    return True
