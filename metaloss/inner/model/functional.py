"""A module as a pure function of its parameters, buffers and a key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from metaloss.errors import MetalossError
from metaloss.inner.model.attributes import Attributes
from metaloss.inner.model.calls import arguments
from metaloss.inner.model.modules import (
    duplicate,
    evaluating,
    refuse_gradient_hooks,
    replaced_forwards,
)
from metaloss.inner.model.outputs import Choice, Heads, Outputs, stated
from metaloss.inner.model.randomness import glance, seeded, sources
from metaloss.inner.model.recompute import no_recomputation
from metaloss.inner.model.second_derivatives import twice_differentiable
from metaloss.inner.model.traits import Pass, Traits, examined
from metaloss.inner.model.transforms import is_number, on_plain_numbers, unfused_attention
from metaloss.inner.model.view import ModuleView
from metaloss.inner.model.wide_norms import with_wide_norms
from metaloss.inner.model.write_back import write_back
from metaloss.inner.processes.ranks import Share
from metaloss.types import RowSample, Tensors


class FunctionalModel(ModuleView):
    """``(params, buffers, inputs, key) -> (outputs, new buffers)``, for any ``nn.Module``.

    θ is the parameters that require a gradient: tied ones once, complex ones as pairs of real
    numbers. "Buffers" means all other tensors that the outputs depend on: the module's buffers, its
    frozen parameters, and tensors in plain attributes. Changes of other attributes are undone after
    a pass. ``nn.Dropout`` draws its mask from the key. Other random generators are seeded by the
    key in eager code; this costs a synchronisation on CUDA (see :attr:`foreign_randomness`).

    Args:
        module: The network.
        autocast: The type of training forward passes (``torch.bfloat16``); the outputs have the
            parameters' type.
        channels_last: Whether to store inputs and filters (4-d) with channels last.
        shared: Whether the rows of a batch may be in several processes: ``share`` at a call.
        live: Whether to call the module itself, with its current modes, hooks and submodules (call
            :meth:`refresh` when it may have changed). Otherwise a copy is called; its training
            passes are in train mode even if the module is in evaluation mode.
        output: Which of the things that the module returns are the raw outputs; see `Outputs`.
            None: what the module says in ``raw_outputs``, or the first ones found.

    Example:
        >>> model = FunctionalModel(nn.Linear(3, 2))
        >>> params, buffers = model.state()
        >>> outputs, _ = model(params, buffers, torch.zeros(4, 3))
        >>> torch.equal(outputs, params["bias"].expand(4, 2))
        True
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        autocast: torch.dtype | None = None,
        channels_last: bool = False,
        shared: bool = False,
        live: bool = False,
        output: Choice | Heads | None = None,
    ) -> None:
        self.module = module if live else duplicate(module)
        if not live and not self.module.training:
            self.module.train()
        if autocast is not None:
            self.module = with_wide_norms(self.module)
        self._autocast = autocast
        self._outputs = Outputs(stated(self.module) if output is None else output)
        super().__init__(self.module, module, channels_last=channels_last, shared=shared)

    def module_with(self, params: Tensors, buffers: Tensors) -> nn.Module:
        """Return an ordinary module on the CPU with these values."""
        module = duplicate(self._original).cpu()
        write_back(module, params, buffers)
        return module

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> FunctionalModel:
        """Move the module that is called, with its frozen parameters, in place; return self."""
        self.module.to(device=device, dtype=dtype)
        return self

    @property
    def shares(self) -> tuple[float, ...]:
        """The shares of the learned loss of several outputs, (B, C, *, H); empty for one output."""
        return self._outputs.shares

    @property
    def narrow(self) -> bool:
        """Whether training passes run in half precision."""
        return self._autocast is not None

    @property
    def writes_params(self) -> tuple[str, ...]:
        """Names of parameters that a forward pass changes in place; empty before the first pass."""
        return () if self.traits is None else self.traits.writes_params

    @property
    def foreign_randomness(self) -> bool | None:
        """Whether the model draws random numbers outside of ``nn.Dropout``; None if not known."""
        return None if self.traits is None else bool(self.traits.foreign)

    def __call__(
        self,
        params: Tensors,
        buffers: Tensors,
        inputs: Any,
        *,
        key: Tensor | None = None,
        train: bool = True,
        share: Share | None = None,
        sample: RowSample | None = None,
    ) -> tuple[Tensor, Tensors]:
        """Return the outputs and the buffers after the forward pass. No argument is changed.

        Args:
            params: θ by name.
            buffers: The buffers by name.
            inputs: (B, ...), or a tuple, list or dictionary of such tensors: see `arguments`.
            key: Determines the dropout masks in train mode; 0-d int64.
            train: Whether the pass is in train mode, or in evaluation mode.
            share: Which rows of a batch the inputs are, if other processes have the others. Dropout
                masks and batch statistics are then those of the whole batch.
            sample: Which rows of a batch the inputs are, where the others are left out: likewise.

        Raises:
            MetalossError: At the first training pass, if it cannot be repeated; see `examined`.
        """
        if train and self.traits is None and on_plain_numbers():
            self.examine(params, buffers, inputs, key)
        traits = self.traits
        looks = train and traits is not None and is_number(key)
        before = (torch.get_rng_state(), glance()) if looks else None
        if traits is None or traits.writes_inputs:
            inputs = pytree.tree_map_only(Tensor, torch.clone, inputs)
        if not train:
            params = {n: p.clone() if n in self.writes_params else p for n, p in params.items()}
        watched = self.module.modules() if traits is None else traits.touched
        attributes = Attributes(watched)
        try:
            with self._random(key):
                found = self._pass(params, self._own(buffers), inputs, key, train, share, sample)
        finally:
            attributes.restore()
        if before is not None and not (
            before[1] == glance() and torch.equal(before[0], torch.get_rng_state())
        ):
            # The model has begun to draw random numbers: run the pass again with seeds.
            torch.set_rng_state(before[0])
            assert traits is not None
            self.traits = traits._replace(foreign=tuple(sources(self.module.modules())))
            return self(
                params,
                buffers,
                inputs,
                key=key,
                train=train,
                share=share,
                sample=sample,
            )
        return found

    def examine(
        self, params: Tensors, buffers: Tensors, inputs: Any, key: Tensor | None = None
    ) -> Traits:
        """Find the side effects of a training pass by two forward passes and a backward pass."""
        refuse_gradient_hooks(self._original)
        given = {name: p.detach().clone().requires_grad_() for name, p in params.items()}

        def one_pass() -> Pass:
            rows = pytree.tree_map_only(Tensor, torch.clone, inputs)
            own = {name: value.clone() for name, value in buffers.items()}
            outputs, after = self._pass(given, own, rows, key, True)
            for name in list(self._attributes):
                if after[name].shape != buffers[name].shape:
                    # The tensor depends on the batch's size, and is not state.
                    self._overwritten.add(name)
                    del self._attributes[name]
            pairs = {
                name: (buffers[name], after[name])
                for name in after
                if name not in self._overwritten
            }
            written = [name for name in self._frozen if own[name]._version]
            return Pass(outputs, given, pairs, rows, written)

        self.traits = examined(self.module, self._attributes, one_pass)
        self._known = {**dict(list(self._known.items())[-15:]), self.structure: self.traits}
        return self.traits

    def _pass(
        self,
        params: Tensors,
        buffers: Tensors,
        inputs: Any,
        key: Tensor | None,
        train: bool,
        share: Share | None = None,
        sample: RowSample | None = None,
    ) -> tuple[Tensor, Tensors]:
        """Run the module; ``buffers`` may be changed in place."""
        given = {
            name: torch.view_as_complex(value) if name in self._complex else value
            for name, value in params.items()
        }
        plain = [n for n in buffers if n not in self._attributes and n not in self._overwritten]
        given |= {name: buffers[name] for name in plain}
        for dropout in self._dropouts:
            dropout.begin(key, share, None if sample is None else sample.rows)
        for norm in self._norms:
            norm.begin(share, sample)
        if self._channels_last:
            inputs = pytree.tree_map_only(Tensor, self._laid_out, inputs)
        positional, named = arguments(self.module, inputs)
        with self._around(train, whole=sample is None or not sample.moments), self._held(buffers):
            given |= {other: given[name] for other, name in self._tied.items()}
            outputs = functional_call(self.module, given, positional, named, tie_weights=False)
            outputs = self._outputs(outputs, train)
            self._refuse_untied(given)
            after = {name: given[name] for name in plain}
            for name, (part, attribute) in self._attributes.items():
                left = vars(part).get(attribute)
                after[name] = left if isinstance(left, Tensor) else buffers[name]
        if self._autocast is not None:
            outputs = outputs.to(next(iter(params.values())).dtype)
        # Frozen parameters are not copied.
        return outputs, {
            name: value if self._rests(name) else after[name].detach()
            for name, value in buffers.items()
        }

    def _refuse_untied(self, given: Tensors) -> None:
        """Raise if a pass replaced one of two tied tensors."""
        for other, name in self._tied.items():
            if given[other] is not given[name]:
                raise MetalossError(
                    f"the model's {name!r} and {other!r} are one tensor, and its forward pass "
                    "replaces one of them: run the model once on a batch first, or change the "
                    "tensor in place"
                )

    @contextmanager
    def _around(self, train: bool, whole: bool) -> Iterator[None]:
        """Set everything that a pass needs, and restore it at the end."""
        parts: dict[nn.Module, Any] = {one.module: one.forward for one in self._dropouts}
        if self._shared or not whole:
            parts |= {one.norm: one.forward for one in self._norms}
        with ExitStack() as stack:
            stack.enter_context(no_recomputation())
            stack.enter_context(twice_differentiable())
            if parts:
                stack.enter_context(replaced_forwards(parts))
            if not train:
                stack.enter_context(evaluating(self.module))
            stack.enter_context(unfused_attention())
            if train and self._autocast is not None:
                device = next(self.module.parameters()).device.type
                stack.enter_context(torch.autocast(device, dtype=self._autocast))
            yield

    @contextmanager
    def _random(self, key: Tensor | None) -> Iterator[None]:
        """Seed random generators other than that of ``nn.Dropout``."""
        traits = self.traits
        used = sources(self.module.modules()) if traits is None else traits.foreign
        if not used or not is_number(key):
            yield
            return
        with seeded(used, 0 if key is None else int(key)):
            yield
