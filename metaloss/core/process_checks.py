"""What is checked before many processes train one run."""

from __future__ import annotations

import hashlib

import torch
from torch.utils import _pytree as pytree

from metaloss.compose import to_yaml
from metaloss.config import Precision
from metaloss.core.digests import digest
from metaloss.core.setup import Setup
from metaloss.errors import MetalossError, UnsupportedError

# Rows that are looked at: other data, or another split, differs in the first ones.
_ROWS = 4096
# Between the whole batch and its shares, as a part of the largest output: rounding stays below
# (convolutions in TF32 included), rows that depend on each other are far above.
_TOLERANCE = {Precision.fp32: 0.02, Precision.bf16: 0.1}


def check_processes(setup: Setup, place: int | None = None) -> None:
    """Raise, in every process, unless the processes can train this run.

    Args:
        setup: The run, as this process sees it.
        place: The step that it goes on from, None if it begins.

    Raises:
        MetalossError: If the processes differ in what they are given, or a batch has too few rows.
        UnsupportedError: If the run cannot be spread over processes; it says why.
    """
    ranks = setup.ranks
    if ranks.size == 1:
        return
    if setup.search is not None:
        raise UnsupportedError(
            f"meta_optimizer={setup.config.meta_optimizer.name} searches by itself and cannot be "
            f"done by {ranks.size} processes: search with one (and workers=N), then train with "
            "loss=load"
        )
    first, *others = ranks.every({**_seen(setup), "checkpoint": str(place)})
    for rank, other in enumerate(others, 1):
        for name, seen in first.items():
            if other[name] != seen:
                raise MetalossError(
                    f"rank {rank} has another {name} than rank 0: every process must be given the "
                    "same (seed what you build)"
                )
    for name, stream in setup.advance.streams.items():
        if stream.size < ranks.size:
            raise MetalossError(
                f"a {name} batch has {stream.size} rows: expected one or more for each of "
                f"{ranks.size} processes"
            )
    _check_rows(setup)


@torch.no_grad()
def _check_rows(setup: Setup) -> None:
    """Try the model on a batch as a whole and in shares: both must give the same."""
    ranks, problem = setup.ranks, setup.problem
    refused = f"the model cannot be trained by {ranks.size} processes: %s; train it by one"
    batch, key = setup.advance.streams["train"][0], setup.advance.key("probe", 0)
    few = slice(8 * ranks.size)
    batch = batch._replace(inputs=batch.inputs[few], targets=batch.targets[few])
    state = setup.advance.fresh("train", 0)
    whole = problem.model(state.params, state.buffers, batch.inputs, key=key)
    if problem.model.foreign_randomness:
        raise UnsupportedError(refused % "it draws random numbers outside of nn.Dropout")
    shares = problem.predict(state.params, state.buffers, batch, key)
    tolerance = _TOLERANCE[setup.config.precision]
    pairs = zip(pytree.tree_leaves(whole), pytree.tree_leaves(shares), strict=True)
    both = [(a.double(), b.double()) for a, b in pairs if a.numel()]
    differ = any(bool((a - b).abs().max() > tolerance * a.abs().max()) for a, b in both)
    if ranks.any(differ):
        raise UnsupportedError(
            refused % "its outputs or buffers depend on which rows a process sees (only "
            "nn.BatchNorm and nn.Dropout may look across rows)"
        )


def _seen(setup: Setup) -> dict[str, str]:
    """Return a digest of everything that must be the same in every process, by name."""
    task, module = setup.task, setup.problem.model
    rows = {
        f"{split}/{name}": values[:_ROWS]
        for split in ("train", "valid", "test")
        for name, values in getattr(task, split)._asdict().items()
    }
    sizes = [len(getattr(task, split).targets) for split in ("train", "valid", "test")]
    config = to_yaml(setup.config)
    weights = [*pytree.tree_leaves(setup.advance.fresh("train", 0)), *module.constants()]
    return {
        "configuration": hashlib.sha256(config.encode()).hexdigest(),
        "task": digest(rows.values()) + str(sizes),
        "model": digest(weights),
        "loss": digest([*setup.loss.parameters(), *setup.loss.buffers()]),
    }
