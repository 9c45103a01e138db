"""The side effects of a model's forward pass, found out once by two forward passes.

A backward pass of the second one shows whether it runs parts of the model again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from metaloss.errors import MetalossError
from metaloss.inner.model.attributes import Attributes, overwritten
from metaloss.inner.model.randomness import Source, drawn_from, seeded, sources
from metaloss.inner.model.recompute import needs_module_backward

# Allowed difference between two passes: on a GPU, the order of some sums is random.
_ROUNDING = 1e-4


_REGISTRIES = ("_parameters", "_buffers", "_modules")


class Pass(NamedTuple):
    """One forward pass.

    Attributes:
        outputs: The raw outputs.
        params: The given θ.
        buffers: The buffers as (before, after).
        inputs: The given inputs.
        written: Names of frozen parameters that were changed in place.
    """

    outputs: Tensor
    params: dict[str, Tensor]
    buffers: dict[str, tuple[Tensor, Tensor]]
    inputs: Any
    written: list[str]


class Traits(NamedTuple):
    """The side effects of a model's forward pass.

    Attributes:
        foreign: Random generators that it uses outside of ``nn.Dropout``.
        touched: Submodules whose plain attributes it changes; they are restored after every pass.
        writes_inputs: Whether it changes its inputs in place; it then gets copies.
        writes_params: Names of parameters that it changes in place.
        writes_frozen: Names of frozen parameters that it changes in place; they are treated as
            buffers.
    """

    foreign: tuple[Source, ...]
    touched: tuple[nn.Module, ...]
    writes_inputs: bool
    writes_params: tuple[str, ...]
    writes_frozen: tuple[str, ...]


def examined(
    module: nn.Module,
    carried: Collection[str],
    one_pass: Callable[[], Pass],
) -> Traits:
    """Run a forward pass twice, and return its side effects.

    Args:
        module: The model.
        carried: Full names of the tensors in plain attributes that are part of its state.
        one_pass: Runs the pass, with the same values at every call; θ is leaves of a graph.

    Raises:
        MetalossError: If two passes over the same rows with the same weights differ, or if the
            model changes state that is not a tensor.
    """
    names = {part: path for path, part in module.named_modules()}
    parts = list(names)
    _refuse_hidden_modules(names)
    before = Attributes(parts)
    begun_with = [(part, own, dict(vars(part)[own])) for part in parts for own in _REGISTRIES]
    every = sources(parts)
    states = [source.get() for source in every]
    try:
        with torch.no_grad(), seeded(every, 1):
            begun = [source.get() for source in every]
            outputs, params, buffers, inputs, written = one_pass()
            foreign = drawn_from(every, begun)
        for part, own, entries in begun_with:
            filled = {name for name, value in entries.items() if value is None}
            filled &= {name for name, value in vars(part)[own].items() if value is not None}
            if made := (vars(part)[own].keys() ^ entries.keys()) | filled:
                raise MetalossError(
                    f"the model's part {names[part] or 'itself'!r} adds or removes {min(made)!r} "
                    "in its forward pass: run the model once on a batch first"
                )
        changed = before.changed()
        touched = {part: None for part, *_ in changed}
        after = Attributes(parts)
        with torch.enable_grad(), seeded(every, 1):
            again, leaves, *_ = one_pass()
            if needs_module_backward(module, again, list(leaves.values())):
                raise MetalossError(
                    "the model's backward pass runs a part of the model again, or reads its "
                    "weights, which are then no longer those of the step: pass them to the "
                    "autograd.Function as arguments, or use torch.utils.checkpoint.checkpoint"
                )
        for part, name, old, new in after.changed():
            full = f"{names[part]}.{name}" if names[part] else name
            if full in carried or overwritten(old, new):
                continue
            raise MetalossError(
                f"the model's part {names[part] or 'itself'!r} changes its attribute {name!r} in "
                "every forward pass, and a step here takes several passes: make it a buffer "
                "(register_buffer)"
            )
    finally:
        for part, own, entries in begun_with:
            if vars(part)[own].keys() != entries.keys() or None in entries.values():
                vars(part)[own].clear()
                vars(part)[own].update(entries)
        before.restore()
        for source, state in zip(every, states, strict=True):
            source.set(state)
    for name, (old, new) in buffers.items():
        if old.shape != new.shape:
            raise MetalossError(
                f"the model changes the shape of its buffer {name!r} in its forward pass, from "
                f"{tuple(old.shape)} to {tuple(new.shape)}: expected buffers of fixed shape"
            )
    if not _close(outputs, again.detach()):
        raise MetalossError(
            "the model's outputs differ between two forward passes over the same rows with the "
            "same weights and the same random state: make all state a buffer (register_buffer), "
            "and draw random numbers with torch, numpy, random, or a generator in an attribute of "
            "the model"
        )
    return Traits(
        foreign=tuple(foreign),
        touched=tuple(touched),
        writes_inputs=any(leaf._version for leaf in _tensors(inputs)),
        writes_params=tuple(name for name, value in params.items() if value._version),
        writes_frozen=tuple(written),
    )


def _refuse_hidden_modules(names: Mapping[nn.Module, str]) -> None:
    """Raise if a submodule has modules with buffers in plain lists or dictionaries."""
    for part, path in names.items():
        for name, value in vars(part).items():
            inside = value.values() if isinstance(value, dict) else value
            if name in _REGISTRIES or not isinstance(value, list | tuple | dict):
                continue
            for one in inside:
                if (
                    isinstance(one, nn.Module)
                    and one not in names
                    and any(True for _ in one.buffers())
                ):
                    raise MetalossError(
                        f"the model's part {path or 'itself'!r} has a {type(one).__name__} in the "
                        f"plain {type(value).__name__} {name!r}, so that its buffers are not "
                        "found: use nn.ModuleList or nn.ModuleDict"
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
