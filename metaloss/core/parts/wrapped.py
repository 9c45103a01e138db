"""Modules that are no plain model: wrapped, rewritten by a compiler, or without numbers yet."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parameter import is_lazy

from metaloss.errors import MetalossError

# By the names of their classes: what is not imported cannot be in a model. torch's own, and what
# goes by the same names elsewhere. What they do around a forward pass (averaged gradients, weights
# that are gathered) is not done where a model is called as a function of its weights.
_WRAPPERS = {
    "DistributedDataParallel",
    "DataParallel",
    "DeepSpeedEngine",
    "_FabricModule",
}
# Weights that are in pieces: nothing inside is whole.
_SHARDED = {"FullyShardedDataParallel", "FSDPModule"}
_SHARES = "under torchrun metaloss shares the rows itself"


def refuse_wrapped(module: nn.Module, name: str = "model") -> None:
    """Raise unless a module, and every part of it, is a plain one.

    Args:
        module: What the user handed over.
        name: What it is called in the message.

    Raises:
        MetalossError: With the first part that is in the way, and what to hand over instead.

    Example:
        >>> refuse_wrapped(nn.Sequential(nn.Linear(2, 2)))
        >>> refuse_wrapped(nn.Sequential(nn.LazyLinear(2)))
        Traceback (most recent call last):
        metaloss.errors.MetalossError: model[0].weight has no shape yet (nn.LazyLinear): run the \
model once on a batch first
    """
    for path, part in module.named_modules():
        _refuse_part(part, _place(name, module, path))
    for path, value in (*module.named_parameters(), *module.named_buffers()):
        owner, _, own = path.rpartition(".")
        place = f"{_place(name, module, owner)}.{own}"
        if is_lazy(value):
            kind = type(module.get_submodule(owner)).__name__
            raise MetalossError(
                f"{place} has no shape yet (nn.{kind}): run the model once on a batch first"
            )
        if value.is_meta:
            raise MetalossError(
                f"{place} is on the meta device, which holds no numbers: use "
                f"{name}.to_empty(device=...) and give it its weights"
            )
        if "DTensor" in _names(value):
            raise MetalossError(
                f"{place} is a DTensor, spread over processes: hand over a model with whole "
                f"weights; {_SHARES}"
            )


def _refuse_part(part: nn.Module, place: str) -> None:
    names = _names(part)
    wrapper = next((one for one in names if one in _WRAPPERS), None)
    if wrapper:
        raise MetalossError(
            f"{place} is a {wrapper}: hand over the module inside ({place}.module); {_SHARES}"
        )
    sharded = next((one for one in names if one in _SHARDED), None)
    if sharded:
        raise MetalossError(
            f"{place} is a {sharded}: hand over a module that FSDP has not taken; {_SHARES}"
        )
    if "OptimizedModule" in names:
        raise MetalossError(
            f"{place} is compiled by torch.compile: hand over the module inside "
            f"({place}._orig_mod); Learner(compile=...) and compile=on compile whole steps"
        )
    if getattr(part, "_compiled_call_impl", None) is not None:
        raise MetalossError(
            f"{place} was compiled in place by its compile(): hand over the module before that; "
            "Learner(compile=...) and compile=on compile whole steps"
        )
    if isinstance(part, torch.jit.ScriptModule):
        raise MetalossError(
            f"{place} is a {type(part).__name__}, scripted or traced by torch.jit: hand over the "
            "module that it was made of"
        )
    if isinstance(part, nn.SyncBatchNorm):
        _refuse_sync(part, place)


def _refuse_sync(part: nn.SyncBatchNorm, place: str) -> None:
    if not (dist.is_available() and dist.is_initialized()):
        return
    group = part.process_group
    if group is not None and dist.get_world_size(group) != dist.get_world_size():
        raise MetalossError(
            f"{place} is a SyncBatchNorm over some of the processes: metaloss takes the statistics "
            "of all rows; leave its process_group out"
        )
    if dist.get_world_size() == 1 and next(part.parameters(), torch.empty(0)).device.type == "cpu":
        raise MetalossError(
            f"{place} is a SyncBatchNorm, which cannot work on a cpu: use nn.BatchNorm, whose "
            "statistics are those of all processes"
        )


def _place(name: str, module: nn.Module, path: str) -> str:
    """Return how a part is reached in Python: ``model.body[0]``."""
    place = name
    for step in path.split(".") if path else ():
        place += f"[{step}]" if step.isdecimal() else f".{step}"
    return place


def _names(value: object) -> list[str]:
    return [kind.__name__ for kind in type(value).__mro__]
