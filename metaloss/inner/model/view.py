"""The parameters, buffers, attributes and replaced submodules of a module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from metaloss.inner.model.attributes import tensor_attributes
from metaloss.inner.model.batch_norm import SharedBatchNorm, batch_moments, shared_batch_norms
from metaloss.inner.model.dropout import KeyedDropout, keyed_dropouts
from metaloss.inner.model.modules import fingerprint, tied_names
from metaloss.inner.model.traits import Traits
from metaloss.types import Tensors


class ModuleView:
    """A module and its structure, which :meth:`refresh` updates.

    Args:
        module: The module that is called.
        original: The module with the initial values.
        channels_last: Whether to store filters (4-d) with channels last.
        shared: Whether the rows of a batch may be in several processes.

    Attributes:
        structure: A value that changes if the module may compute something else.
        traits: The side effects of a training pass; None if not known yet.
    """

    def __init__(
        self, module: nn.Module, original: nn.Module, *, channels_last: bool, shared: bool
    ) -> None:
        self.module, self._original = module, original
        self._channels_last, self._shared = channels_last, shared
        self.structure: Any = None
        self.traits: Traits | None = None
        self._known: dict[Any, Traits] = {}
        # Tensors in attributes that are not state, but only results of a pass.
        self._overwritten: set[str] = set()
        self.refresh()

    def refresh(self) -> None:
        """Update the structure: what is trained, submodules, modes."""
        structure = fingerprint(self.module)
        parameters = dict(self.module.named_parameters())
        # A frozen parameter may be another object now.
        self._frozen = {name: p for name, p in parameters.items() if not p.requires_grad}
        if structure == self.structure:
            return
        self.structure, self.traits = structure, self._known.get(structure)
        self._trainable = [name for name, p in parameters.items() if p.requires_grad]
        self._buffers = [name for name, _ in self.module.named_buffers()]
        self._complex = {name for name in self._trainable if parameters[name].is_complex()}
        self._tied = tied_names(self.module)
        self._attributes = {
            name: place
            for name, place in tensor_attributes(self.module).items()
            if name not in self._overwritten
        }
        self._dropouts: list[KeyedDropout] = keyed_dropouts(self.module)
        self._norms: list[SharedBatchNorm] = shared_batch_norms(self.module)

    def state(
        self, module: nn.Module | None = None, device: torch.device | None = None
    ) -> tuple[Tensors, Tensors]:
        """Return copies of θ and the buffers of a module, by default of the original one.

        Frozen parameters are not copied, except to another ``device``.
        """
        source = self._original if module is None else module
        params, buffers = dict(source.named_parameters()), dict(source.named_buffers())
        attributes = tensor_attributes(source) if self._attributes else {}
        rest = {name: buffers[name].detach().clone() for name in self._buffers}
        rest |= {name: value.detach() for name, value in self._frozen.items()}
        for name in self._attributes:
            part, attribute = attributes.get(name, self._attributes[name])
            rest[name] = getattr(part, attribute).detach().clone()
        own = {name: self._real(params[name].detach().clone()) for name in self._trainable}
        if device is not None:
            own, rest = ({n: v.to(device) for n, v in values.items()} for values in (own, rest))
        return own, rest

    def attributes(self) -> Tensors:
        """Return copies of the tensors in plain attributes, by full name."""
        found = {name: vars(part)[own] for name, (part, own) in self._attributes.items()}
        return {name: value.detach().clone() for name, value in found.items()}

    def moments(self, before: Tensors, after: Tensors) -> Tensors:
        """Return the batch moments of a training pass, by BatchNorm: see `batch_moments`."""
        return batch_moments(self._norms, before, after)

    def constants(self) -> list[Tensor]:
        """Return the frozen parameters."""
        return list(self._frozen.values())

    def _own(self, buffers: Tensors) -> Tensors:
        # Copies, because modules change their buffers in place.
        return {n: v if self._rests(n) else v.clone() for n, v in buffers.items()}

    def _rests(self, name: str) -> bool:
        """Return whether a pass does not change one of the buffers."""
        if name in self._overwritten:
            return True
        written = self.traits.writes_frozen if self.traits is not None else ()
        return name in self._frozen and name not in written

    def _real(self, value: Tensor) -> Tensor:
        return torch.view_as_real(value) if value.is_complex() else self._laid_out(value)

    def _laid_out(self, tensor: Tensor) -> Tensor:
        if not self._channels_last or tensor.dim() != 4:
            return tensor
        return tensor.contiguous(memory_format=torch.channels_last)

    @contextmanager
    def _held(self, buffers: Tensors) -> Iterator[None]:
        """Set the tensors in plain attributes, and restore the old ones at the end."""
        before = {}
        try:
            for name, (part, attribute) in self._attributes.items():
                before[name] = vars(part).get(attribute)
                vars(part)[attribute] = buffers[name]
            yield
        finally:
            for name, value in before.items():
                part, attribute = self._attributes[name]
                vars(part)[attribute] = value
