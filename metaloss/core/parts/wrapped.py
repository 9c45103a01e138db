"""Checks for modules that are wrapped, compiled or without values."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parameter import is_lazy

from metaloss.errors import MetalossError

# Names of wrapper classes in torch and in other libraries, which need not be imported. What they do
# around a forward pass (average gradients, gather weights) is not done when a model is called as a
# function of its weights.
_WRAPPERS = {
    "DistributedDataParallel",
    "DataParallel",
    "DeepSpeedEngine",
    "_FabricModule",
}
# Wrappers that split the weights.
_SHARDED = {"FullyShardedDataParallel", "FSDPModule"}
_SHARES = "under torchrun metaloss splits the rows itself"


def refuse_wrapped(module: nn.Module, name: str = "model") -> None:
    """Raise if something is no module, or a part of it is wrapped, compiled or without values.

    Raises:
        MetalossError: With the first such submodule, and what to pass instead.

    Example:
        >>> refuse_wrapped(nn.Sequential(nn.Linear(2, 2)))
        >>> refuse_wrapped(nn.Sequential(nn.LazyLinear(2)))
        Traceback (most recent call last):
        metaloss.errors.MetalossError: model[0].weight has no shape yet (nn.LazyLinear): run the \
model once on a batch first
    """
    if not isinstance(module, nn.Module):
        raise MetalossError(f"{name} is a {type(module).__name__}: expected a torch.nn.Module")
    for path, part in module.named_modules():
        _refuse_part(part, _place(name, path))
    for path, value in (*module.named_parameters(), *module.named_buffers()):
        owner, _, own = path.rpartition(".")
        place = f"{_place(name, owner)}.{own}"
        if is_lazy(value):
            kind = type(module.get_submodule(owner)).__name__
            raise MetalossError(
                f"{place} has no shape yet (nn.{kind}): run the model once on a batch first"
            )
        if value.is_meta:
            raise MetalossError(
                f"{place} is on the meta device, which has no values: use "
                f"{name}.to_empty(device=...) and load its weights"
            )
        if "DTensor" in _names(value):
            raise MetalossError(
                f"{place} is a DTensor, split over processes: pass a model with whole "
                f"weights; {_SHARES}"
            )


def _refuse_part(part: nn.Module, place: str) -> None:
    names = _names(part)
    wrapper = next((one for one in names if one in _WRAPPERS), None)
    if wrapper:
        raise MetalossError(
            f"{place} is a {wrapper}: pass the module inside ({place}.module); {_SHARES}"
        )
    sharded = next((one for one in names if one in _SHARDED), None)
    if sharded:
        raise MetalossError(f"{place} is a {sharded}: pass the module before FSDP; {_SHARES}")
    if "OptimizedModule" in names:
        raise MetalossError(
            f"{place} is compiled by torch.compile: pass the module inside "
            f"({place}._orig_mod); Learner(compile=...) and compile=on compile whole steps"
        )
    if getattr(part, "_compiled_call_impl", None) is not None:
        raise MetalossError(
            f"{place} was compiled in place by its compile(): pass the module before that; "
            "Learner(compile=...) and compile=on compile whole steps"
        )
    if isinstance(part, torch.jit.ScriptModule):
        raise MetalossError(
            f"{place} is a {type(part).__name__}, scripted or traced by torch.jit: pass the "
            "original module"
        )
    if isinstance(part, nn.SyncBatchNorm):
        _refuse_sync(part, place)


def _refuse_sync(part: nn.SyncBatchNorm, place: str) -> None:
    if not (dist.is_available() and dist.is_initialized()):
        return
    group = part.process_group
    if group is not None and dist.get_world_size(group) != dist.get_world_size():
        raise MetalossError(
            f"{place} is a SyncBatchNorm over some of the processes, but metaloss uses the "
            "statistics of all rows: make it without process_group"
        )
    if dist.get_world_size() == 1 and next(part.parameters(), torch.empty(0)).device.type == "cpu":
        raise MetalossError(
            f"{place} is a SyncBatchNorm, which does not work on a CPU: use nn.BatchNorm, which "
            "has the statistics of all processes in metaloss"
        )


def _place(name: str, path: str) -> str:
    """Return the Python expression for a submodule: ``model.body[0]``."""
    place = name
    for step in path.split(".") if path else ():
        place += f"[{step}]" if step.isdecimal() else f".{step}"
    return place


def _names(value: object) -> list[str]:
    return [kind.__name__ for kind in type(value).__mro__]
