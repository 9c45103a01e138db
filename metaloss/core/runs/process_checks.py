"""Checks before several processes train one run."""

from __future__ import annotations

import hashlib

from torch.utils import _pytree as pytree

from metaloss.compose import to_yaml
from metaloss.config import Precision
from metaloss.core.distributed.alike import check_rows, check_same
from metaloss.core.parts.setup import Setup
from metaloss.core.storage.digests import digest
from metaloss.errors import MetalossError, UnsupportedError
from metaloss.inner.sharded import ShardedProblem

# See `check_rows`.
_TOLERANCE = {Precision.fp32: 0.02, Precision.bf16: 0.1}


def check_processes(setup: Setup, place: int | None = None) -> None:
    """Raise in every process if the processes cannot train this run.

    ``place`` is the step that it is resumed from; None for a new run.

    Raises:
        MetalossError: If the processes have different inputs, or a batch has too few rows.
        UnsupportedError: If the run cannot be split over processes; with the reason.
    """
    ranks = setup.ranks
    if ranks.size == 1:
        return
    if setup.search is not None:
        raise UnsupportedError(
            f"meta_optimizer={setup.config.meta_optimizer.name} is a search, which cannot be "
            f"done by {ranks.size} processes: search with one (and workers=N), then train with "
            "loss=load"
        )
    check_same(ranks, {**_seen(setup), "checkpoint": str(place)})
    for name, stream in setup.advance.streams.items():
        if stream.size < ranks.size:
            raise MetalossError(
                f"a {name} batch has {stream.size} rows: expected one or more for each of "
                f"{ranks.size} processes"
            )
    tolerance = _TOLERANCE[setup.config.precision]
    batch, key = setup.advance.streams["train"][0], setup.advance.key("probe", 0)
    assert isinstance(setup.problem, ShardedProblem)
    check_rows(setup.problem, setup.advance.fresh("train", 0), batch, key, tolerance)


def _seen(setup: Setup) -> dict[str, str]:
    """Return digests of everything that must be the same in every process, by name."""
    task, module = setup.task, setup.problem.model
    parts = [getattr(task, split) for split in ("train", "valid", "test")]
    sizes = [len(part.targets) for part in parts]
    config = to_yaml(setup.config)
    followed = [] if setup.replayed is None else setup.replayed.schedule.buffers()
    weights = [*pytree.tree_leaves(setup.advance.fresh("train", 0)), *module.constants()]
    return {
        "configuration": hashlib.sha256(config.encode()).hexdigest(),
        "task": digest(pytree.tree_leaves(parts)) + str(sizes),
        "model": digest(weights),
        "loss": digest([*setup.loss.parameters(), *setup.loss.buffers(), *followed]),
    }
