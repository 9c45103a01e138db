"""Checks that a run is resumed with the same rows, model and loss."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from metaloss.contracts import Task
from metaloss.core.parts.custom import CUSTOM
from metaloss.core.parts.setup import Setup
from metaloss.core.storage.digests import digest
from metaloss.data.lazy import compared
from metaloss.errors import MetalossError
from metaloss.inner.fields import leaves
from metaloss.inner.model.write_back import write_back
from metaloss.types import Batch

SPLITS = ("train", "valid", "test")
_CALLED = {"train": "training", "valid": "validation", "test": "test", "jury": "jury"}
# Another machine may round scaled rows differently. Different rows differ much more.
_ROUNDING = 1e-5
_PROBE_ROWS, _PROBE_TOLERANCE = 8, 1e-3
_SKETCHED = 2**16


def made_of(setup: Setup) -> dict[str, Any]:
    """Return plain values that identify the rows, the model and the loss of a run."""
    task, config = setup.task, setup.config
    rows = {split: getattr(task, split) for split in splits_of(task)}
    return {
        "rows": {split: digest(batch) for split, batch in rows.items()},
        "counts": {split: len(batch.targets) for split, batch in rows.items()},
        "task": {
            "link": task.link.name,
            "outputs": task.outputs,
            "metric": task.metric_name,
            "goal": task.goal,
            "task loss on probes": _probed(task.task_loss, setup),
            "metric on probes": _probed(task.metric, setup),
            **({} if task.class_weights is None else {"class weights": [*task.class_weights]}),
        },
        "model": _structure(setup.model, whole=config.model.name == CUSTOM),
        "loss": {
            **_structure(setup.loss, whole=config.loss.name == CUSTOM),
            "fixed values": digest(setup.loss.buffers()),
            "value on probes": _probed(_with_plain_numbers(setup.loss), setup),
        },
        "begins": _beginnings(setup),
    }


def splits_of(task: Task) -> tuple[str, ...]:
    """Return the names of the splits of a task."""
    return (*SPLITS, "jury") if task.jury else SPLITS


def sketches(setup: Setup) -> dict[str, list[Tensor]]:
    """Return a number for each row (inputs, targets) of each split, not sensitive to rounding."""
    return {
        split: [_sketch(values)[0] for values in _compared(getattr(setup.task, split))]
        for split in splits_of(setup.task)
    }


def compare(
    folder: str, setup: Setup, expected: Mapping[str, Any], saved: Mapping[str, Any] | None
) -> list[str]:
    """Compare a run with its beginning, and return messages.

    ``expected`` is the result of `made_of` when it began; empty for a run of an older version.
    ``saved`` is its checkpoint; None if it begins again.

    Raises:
        MetalossError: If the rows, the model or the loss have changed.
    """
    if not expected:
        return [
            "the run does not say which rows, model and loss it was made with (it is of an older "
            "version): whether these are the same was not checked"
        ]
    found = made_of(setup)
    others = f"start a new run with --config {folder}/config.yaml output=ANOTHER"
    differ = [
        split for split in found["rows"] if expected["rows"].get(split) != found["rows"][split]
    ]
    messages = []
    if differ:
        names = ", ".join(_CALLED[split] for split in differ)
        then, now = (one["counts"][differ[0]] for one in (expected, found))
        if saved is None or not _only_rounded(setup, saved.get("sketches")):
            raise MetalossError(
                f"--resume {folder}: the {names} rows are not those that the run was made with "
                f"({then} {_CALLED[differ[0]]} rows then, {now} now): give it the same data, or "
                f"{others}"
            )
        messages.append(
            f"the {names} rows differ in rounding from those that the run was made with: another "
            "machine, or another version of a library"
        )
    for part in ("task", "model", "loss"):
        for name, then in expected[part].items():
            now = found[part].get(name, "missing")
            if _other(then, now):
                raise MetalossError(_other_part(folder, part, name, then, now, others))
        for name in found[part].keys() - expected[part].keys():
            raise MetalossError(
                _other_part(folder, part, name, "missing", found[part][name], others)
            )
    if saved is None:
        for part, then in expected["begins"].items():
            if then != found["begins"].get(part, then):
                raise MetalossError(
                    f"--resume {folder}: the {part} begins with other numbers than the run did, "
                    f"which has no checkpoint yet: give it the same {part}, or {others}"
                )
    return messages


def fixed_values(setup: Setup, *, begins: bool) -> dict[str, Any]:
    """Return the values outside of the state of a run: the frozen parameters of the model.

    If it ``begins``, the initial weights of training too.
    """
    own = begins and setup.config.model.name == CUSTOM
    return {
        "frozen": _frozen(setup.model),
        "begins": [dict(one) for one in setup.advance.fresh("train", 0)[:2]] if own else None,
    }


@torch.no_grad()
def restore_fixed(setup: Setup, saved: Mapping[str, Any]) -> None:
    """Write the result of :func:`fixed_values` into the model of a setup, which has a copy."""
    if saved["begins"] is not None:
        write_back(setup.model, *saved["begins"])
    write_back(setup.model, saved["frozen"], {})
    kept = saved["frozen"].values()
    for own, value in zip(setup.problem.model.constants(), kept, strict=True):
        own.copy_(value)


def _frozen(module: nn.Module) -> dict[str, Tensor]:
    parameters = module.named_parameters()
    return {name: value.detach() for name, value in parameters if not value.requires_grad}


def _structure(module: nn.Module, *, whole: bool) -> dict[str, str]:
    """Return a line for each tensor and, if ``whole``, for each part of a module."""
    lines = {
        name: f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
        f"{'' if value.requires_grad or kind == 'buffer' else ' frozen'}"
        for kind, values in (
            ("parameter", module.named_parameters()),
            ("buffer", module.named_buffers()),
        )
        for name, value in values
    }
    if not whole:  # a registered part is described by the config
        return lines
    for name, part in module.named_modules():
        text = f"{type(part).__qualname__}({part.extra_repr()})"
        lines[f"part {name or 'itself'}"] = _without_addresses(text)
    if hasattr(module, "config"):
        lines["options"] = _without_addresses(repr(module.config))
    return lines


def _without_addresses(text: str) -> str:
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)


def _beginnings(setup: Setup) -> dict[str, str]:
    """Return digests of the initial values of the user's objects."""
    found, config = {}, setup.config
    if config.model.name == CUSTOM:
        inner = setup.advance.fresh("train", 0)
        values = pytree.tree_leaves((inner.params, inner.buffers))
        found["model"] = digest([*values, *_frozen(setup.model).values()])
    if config.loss.name == CUSTOM:
        found["loss"] = digest(setup.loss.parameters())
    return found


@torch.no_grad()
def _probed(function: Callable[[Tensor, Tensor], Tensor], setup: Setup) -> float | None:
    """Return the result of a function for fixed outputs of a few rows; None if it fails."""
    targets = setup.task.valid.targets[:_PROBE_ROWS]
    places = targets.shape[2:] if targets.is_floating_point() else targets.shape[1:]
    shape = (len(targets), setup.task.outputs, *places)
    outputs = torch.arange(math.prod(shape), device=targets.device).sin().reshape(shape)
    try:
        value = float(function(outputs, targets))
    except Exception:  # the user's function may raise anything, which is reported elsewhere
        return None
    return value if math.isfinite(value) else None


def _with_plain_numbers(loss: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss with a fixed φ, the same for all losses of its form."""
    phi = {
        name: (0.1 * torch.arange(value.numel(), device=value.device).sin()).reshape(value.shape)
        for name, value in loss.named_parameters()
    }
    return lambda outputs, targets: functional_call(loss, phi, (outputs, targets))


def _other(then: Any, now: Any) -> bool:
    """Return whether two values of `made_of` differ by more than rounding."""
    if isinstance(then, float) or isinstance(now, float):
        if then is None or now is None or isinstance(then, str) or isinstance(now, str):
            return False
        return abs(then - now) > _PROBE_TOLERANCE * max(abs(then), abs(now), _PROBE_TOLERANCE)
    return bool(then != now) and then is not None and now is not None


def _other_part(folder: str, part: str, name: str, then: Any, now: Any, others: str) -> str:
    shown = "" if name == "fixed values" else f" ({then} then, {now} now)"
    return (
        f"--resume {folder}: the {part} is not the one that the run was made with: its {name} "
        f"differs{shown}: give it the same {part}, or {others}"
    )


def _only_rounded(setup: Setup, saved: Mapping[str, Iterable[Tensor]] | None) -> bool:
    """Return whether the rows differ from those of a checkpoint by no more than rounding."""
    if saved is None:
        return False
    for split in splits_of(setup.task):
        batch: Batch = getattr(setup.task, split)
        for values, then in zip(_compared(batch), saved[split], strict=True):
            now, scale = _sketch(values)
            if now.shape != then.shape:
                return False
            if not bool(((now - then.to(now)).abs() <= _ROUNDING * (scale + 1e-3)).all()):
                return False
    return True


def _compared(batch: Batch) -> list[Tensor]:
    return leaves([compared(values) for values in batch])


def _sketch(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return a weighted sum of each row, and the sum of its absolute values, both (N,)."""
    rows = values.reshape(len(values), -1)
    weights = 1 + torch.arange(rows.shape[1], dtype=torch.float64).sin() / 2
    blocks = [block.cpu().double() for block in rows.split(8192)]
    sums = torch.cat([block @ weights for block in blocks])
    scales = torch.cat([block.abs() @ weights for block in blocks])
    # If there are very many rows, several rows share a number.
    size = -(-len(sums) // _SKETCHED)
    pads = (0, -len(sums) % size)
    folded = [nn.functional.pad(one, pads).reshape(-1, size) for one in (sums, scales)]
    mix = 1 + torch.arange(size, dtype=torch.float64).sin() / 2
    return folded[0] @ mix, folded[1] @ mix
