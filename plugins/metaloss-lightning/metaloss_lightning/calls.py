"""What a ``training_step`` gives its network: found by running it, without its source."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from metaloss.errors import MetalossError

_MISSING = object()


class _Called(BaseException):
    """Ends a training_step where it calls a network; no ``except Exception`` catches it."""


def first_called(modules: Mapping[str, nn.Module], run: Callable[[], Any]) -> str | None:
    """Return the name of the first of some modules that a function calls; None: it calls none."""
    called: list[str] = []

    def stop(name: str) -> Callable[..., Any]:
        def forward(*_: Any, **__: Any) -> Any:
            called.append(name)
            raise _Called

        return forward

    with suppress(_Called), ExitStack() as changed:
        for name, module in modules.items():
            changed.enter_context(_replaced(module, stop(name)))
        run()
    return called[0] if called else None


def inputs_of(network: nn.Module, run: Callable[[], Any]) -> Any:
    """Return the inputs that a function gives a network. The function ends there."""
    found: list[Any] = []

    def forward(*positional: Any, **named: Any) -> Any:
        found.append(_as_inputs(network, positional, named))
        raise _Called

    with _replaced(network, forward):
        try:
            run()
        except _Called:
            return _detached(found[0])
    raise MetalossError("training_step does not call the network on a trusted batch")


def followed(network: nn.Module, run: Callable[[], Any]) -> tuple[Any, list[Any]]:
    """Return the result of a function, and the inputs of every call of the network in it.

    The network runs without gradients and leaves its buffers as they are.
    """
    calls: list[Any] = []

    def forward(*positional: Any, **named: Any) -> Any:
        calls.append(_as_inputs(network, positional, named))
        buffers = {name: value.clone() for name, value in network.named_buffers()}
        with torch.no_grad(), _replaced(network, own):
            return torch.func.functional_call(network, buffers, positional, named)

    own = network.forward
    with _replaced(network, forward):
        result = run()
    return result, [_detached(inputs) for inputs in calls]


@contextmanager
def _replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    before = vars(module).get("forward", _MISSING)
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if before is not _MISSING:
            module.forward = before


def _as_inputs(network: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Return the arguments of a call as the inputs of a batch: see `Learner`."""
    if len(positional) == 1 and not named:
        return positional[0]
    bound = inspect.signature(type(network).forward).bind(network, *positional, **named)
    given = dict(list(bound.arguments.items())[1:])
    for name, parameter in bound.signature.parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL and name in given:
            raise MetalossError(
                f"training_step calls the network with *{name}: expected named arguments"
            )
        if parameter.kind is parameter.VAR_KEYWORD:
            given |= given.pop(name, {})
    return {name: value for name, value in given.items() if value is not None}


def _detached(inputs: Any) -> Any:
    for value in pytree.tree_leaves(inputs):
        if isinstance(value, Tensor) and value.requires_grad:
            raise MetalossError(
                "the inputs of the network depend on weights outside of it, which cannot be "
                "trained: let network= name a module that holds all of the weights"
            )
    return inputs
