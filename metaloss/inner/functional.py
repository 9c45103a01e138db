"""A module as a pure function of its parameters, buffers and a key."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from metaloss.inner.batch_norm import SharedBatchNorm, with_shared_batch_norm
from metaloss.inner.keys import uniform
from metaloss.inner.ranks import Share
from metaloss.inner.wide_norms import with_wide_norms
from metaloss.types import Tensors


class FunctionalModel:
    """``(params, buffers, inputs, key) -> (outputs, new buffers)``, for any ``nn.Module``.

    The module is copied and never changed. θ is its parameters that require a gradient, tied ones
    once; frozen parameters stay constants. ``nn.Dropout`` draws its mask from the key. Other
    randomness runs under a forked global generator seeded by the key: eager code only, and it
    costs a host sync on CUDA (see :attr:`foreign_randomness`).

    Args:
        module: The base model.
        autocast: Run training forwards in this type (``torch.bfloat16``); outputs come back in
            the parameters' type.
        channels_last: Lay inputs and filters (4-d) out with channels last.
        shared: Whether the rows of a batch may be spread over processes: ``share`` at a call.

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
    ) -> None:
        self._original = module
        self._module = copy.deepcopy(module)
        self._module.requires_grad_(False)
        self._trainable = [n for n, p in module.named_parameters() if p.requires_grad]
        self._buffers = [name for name, _ in module.named_buffers()]
        # Looking for tied weights at every call costs more than a small model's forward pass.
        self._tied = any(
            sum(1 for _ in values(remove_duplicate=False)) != sum(1 for _ in values())
            for values in (module.named_parameters, module.named_buffers)
        )
        self._training = {
            name: part.training or not module.training for name, part in module.named_modules()
        }
        self._module, self._dropouts = _with_keyed_dropout(self._module)
        self._norms: list[SharedBatchNorm] = []
        if shared:
            self._module, self._norms = with_shared_batch_norm(self._module)
        if autocast is not None:
            self._module = with_wide_norms(self._module)
        self._autocast = autocast
        self._channels_last = channels_last
        self._foreign: bool | None = None
        self._mode: bool | None = None

    def state(self, module: nn.Module | None = None) -> tuple[Tensors, Tensors]:
        """Return copies of θ and the buffers of a module, by default of the one given first."""
        source = self._module if module is None else module
        params = dict(source.named_parameters())
        buffers = dict(source.named_buffers())
        return (
            {name: self._laid_out(params[name].detach().clone()) for name in self._trainable},
            {name: buffers[name].detach().clone() for name in self._buffers},
        )

    def constants(self) -> list[Tensor]:
        """Return the frozen parameters, which are part of the function and not of its state."""
        trained = set(self._trainable)
        return [value for name, value in self._module.named_parameters() if name not in trained]

    def module_with(self, params: Tensors, buffers: Tensors) -> nn.Module:
        """Return an ordinary module, on the CPU, that holds these values."""
        module = copy.deepcopy(self._original).cpu()
        write_back(module, params, buffers)
        return module

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> FunctionalModel:
        """Move the constants (frozen parameters) in place; return self."""
        self._module.to(device=device, dtype=dtype)
        return self

    @property
    def foreign_randomness(self) -> bool | None:
        """Whether the model draws outside of ``nn.Dropout``; None before the first forward."""
        return self._foreign

    def __call__(
        self,
        params: Tensors,
        buffers: Tensors,
        inputs: Tensor,
        *,
        key: Tensor | None = None,
        train: bool = True,
        share: Share | None = None,
    ) -> tuple[Tensor, Tensors]:
        """Return the outputs and the buffers after the forward pass; nothing is mutated.

        Args:
            params: θ by name.
            buffers: The buffers by name.
            inputs: (B, ...).
            key: Decides the dropout masks in train mode; 0-d int64.
            train: Train mode (batch statistics, dropout) or evaluation mode.
            share: Which rows of a batch the inputs are, where other processes have the others:
                dropout masks and batch statistics are then the whole batch's.
        """
        self._set_mode(train)
        for norm in self._norms:
            norm.share = share
        # Modules write their buffers in place: they get copies.
        given = {**params, **{name: value.clone() for name, value in buffers.items()}}
        if train and self._dropouts:
            if key is None:
                raise ValueError("a model with dropout needs a key in train mode")
            for name, dropout in self._dropouts.items():
                dropout.calls, dropout.share = 0, share
                given[f"{name}.key"] = key
        with self._numerics(inputs.device.type, train), self._random(train, key):
            inputs = self._laid_out(inputs)
            outputs = functional_call(self._module, given, (inputs,), tie_weights=self._tied)
        if self._autocast is not None:
            outputs = outputs.to(next(iter(params.values())).dtype)
        return outputs, {name: given[name].detach() for name in buffers}

    def _laid_out(self, tensor: Tensor) -> Tensor:
        if not self._channels_last or tensor.dim() != 4:
            return tensor
        return tensor.contiguous(memory_format=torch.channels_last)

    def _set_mode(self, train: bool) -> None:
        if train == self._mode:
            return
        self._mode = train
        for name, part in self._module.named_modules():
            part.training = train and self._training.get(name, True)

    @contextmanager
    def _numerics(self, device: str, train: bool) -> Iterator[None]:
        # Fused attention has neither a double backward nor forward mode.
        with sdpa_kernel(SDPBackend.MATH):
            if self._autocast is None or not train:
                yield
            else:
                with torch.autocast(device, dtype=self._autocast):
                    yield

    @contextmanager
    def _random(self, train: bool, key: Tensor | None) -> Iterator[None]:
        """Give foreign randomness a seed; find out at the first forward whether there is any."""
        if self._foreign is False or torch.compiler.is_compiling():
            yield
            return
        devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(0 if key is None else int(key))
            before = _random_states(devices)
            yield
            after = _random_states(devices)
        if train and self._foreign is None:
            self._foreign = any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


@torch.no_grad()
def write_back(module: nn.Module, params: Tensors, buffers: Tensors) -> None:
    """Copy θ and the buffers into a module, in place."""
    for own, given in ((module.named_parameters(), params), (module.named_buffers(), buffers)):
        for name, value in own:
            if name in given:
                value.copy_(given[name])


def _random_states(devices: list[int]) -> list[Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(index) for index in devices)]


class _KeyedDropout(nn.Module):
    """Dropout whose mask is a function of (key, module, call within the forward pass)."""

    key: Tensor

    def __init__(self, p: float, index: int) -> None:
        super().__init__()
        self.p = p
        self.index = index
        self.calls = 0
        self.share: Share | None = None
        self.register_buffer("key", torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        salt = self.index * 2**16 + self.calls
        self.calls += 1
        share = self.share
        # Rows are the outermost dimension: the whole mask's numbers before this process's own.
        first = 0 if share is None else share.first * (x.numel() // share.rows)
        keep = uniform(self.key, salt, x.shape, first) >= self.p
        # p = 1 keeps nothing: 0 · x, not 0 / 0.
        return x * keep.to(x.dtype) * (0.0 if self.p == 1 else 1 / (1 - self.p))


def _with_keyed_dropout(module: nn.Module) -> tuple[nn.Module, dict[str, _KeyedDropout]]:
    """Replace every ``nn.Dropout``, shared ones by one object; return the module and the new."""
    found: dict[nn.Module, _KeyedDropout] = {}
    first_names: dict[str, _KeyedDropout] = {}

    def keyed(old: nn.Module, name: str) -> _KeyedDropout:
        if old not in found:
            found[old] = _KeyedDropout(old.p, len(found))  # type: ignore[arg-type]
            first_names[name] = found[old]
        return found[old]

    if type(module) is nn.Dropout:
        module = nn.Sequential(module)
    for path, parent in list(module.named_modules()):
        # Not named_children(), which leaves out the second name of a shared module.
        for child_name, child in list(parent._modules.items()):
            if type(child) is nn.Dropout:
                full = f"{path}.{child_name}" if path else child_name
                setattr(parent, child_name, keyed(child, full))
    return module, first_names
