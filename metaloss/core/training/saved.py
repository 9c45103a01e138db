"""Converts what moves in a run to the content of a checkpoint, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor
from torch.utils import _pytree as pytree

from metaloss.contracts import Progress
from metaloss.core.parts.setup import Setup
from metaloss.core.steps.averages import Averages
from metaloss.core.steps.guard import GuardState
from metaloss.core.steps.state import Meter, Pending, Snapshot, TrainState
from metaloss.core.training.best import CURRENT, Best
from metaloss.core.training.ladder import Ladder
from metaloss.core.training.made_of import fixed_values
from metaloss.core.training.recorder import Recorder
from metaloss.core.training.recording import Recording
from metaloss.core.training.recovery import Recovery
from metaloss.core.training.verdict import Jury
from metaloss.inner.fields import Fields, as_inputs
from metaloss.inner.weighted import WeightedTargets, named_values, of_values
from metaloss.types import Batch, ReplayStep, StoredStep

# torch.load(weights_only=True) allows no classes, so trees are stored as lists of leaves and
# rebuilt with a template of the same structure.


class Saved(Protocol):
    """What a checkpoint reads of a run in training, and what it restores."""

    setup: Setup
    recorder: Recorder
    recovery: Recovery
    recording: Recording
    progress: Progress
    state: TrainState
    best: Best
    rows: dict[str, Tensor]
    jury: Jury
    metrics: dict[str, float]
    train_seconds: float


def pack_run(run: Saved) -> dict[str, Any]:
    """Return everything that is needed to resume a run."""
    offline, train = run.progress.offline, run.progress.train
    best, schedule = run.best, run.setup.schedule
    return {
        "progress": [offline, train],
        "state": {**pack_state(run.state), "recorded": run.recording.packed()},
        "ladder": pack_ladder(run.recovery.ladder),
        "best": [best.metrics, best.step, best.waited, best.weights],
        "best_inner": pack_tree(best.inner),
        **({"jury": [run.rows, best.rows, run.jury.packed()]} if run.rows else {}),
        "metrics": run.metrics,
        "train_seconds": run.train_seconds,
        # Training begins after the offline phase with the weights of the user's model.
        "fixed": fixed_values(run.setup, begins=schedule.offline_total() > 0 and not train),
        "seconds": run.recorder.seconds(),
        "warnings": run.recorder.warnings,
        "files": run.recorder.positions(),
    }


def unpack_run(run: Saved, content: Mapping[str, Any]) -> None:
    """Restore a run from the result of :func:`pack_run`."""
    run.progress = Progress(offline=content["progress"][0], train=content["progress"][1])
    template = run.state
    run.state = unpack_state(content["state"], template)
    run.recording.restore(content["state"].get("recorded"))  # older versions had none
    learns = run.setup.schedule.learns
    run.recovery.ladder = unpack_ladder(content["ladder"], template, learns)
    metrics, step, waited, *weights = content["best"]  # older versions had current weights alone
    like = template.inner
    if not run.setup.schedule.early_stopping:
        like = like._replace(optimizer=None)
    inner = unpack_tree(content["best_inner"], like)
    kind = weights[0] if weights else CURRENT
    run.rows, rows, verdict = content.get("jury", ({}, None, None))
    run.jury.restore(verdict, template)
    place = {"step": step, "waited": waited, "weights": kind}
    run.best = Best(metrics=metrics, inner=inner, rows=rows, **place)
    run.metrics = content["metrics"]
    run.train_seconds = content["train_seconds"]


def pack_state(state: TrainState) -> dict[str, Any]:
    """Return the state as lists of tensors."""
    pending = state.pending
    return {
        "values": _pack(Snapshot(state.inner, state.phi, state.rule)),
        "pending": pending
        and [
            [
                [pytree.tree_leaves(one.state), _pack_batch(one.batch), one.key, one.grads]
                if isinstance(one, StoredStep)
                else [None, _pack_batch(one.batch), one.key, None]
                for one in pending.steps
            ],
            pending.passed,
        ],
        "guard": list(state.guard),
        "meter": list(state.meter),
        "ledger": state.ledger,
        "averages": state.averages and tuple(state.averages),
        "anchor": pack_tree(state.anchor),
    }


def unpack_state(content: dict[str, Any], template: TrainState) -> TrainState:
    """Return the state from the result of :func:`pack_state`."""
    values = _unpack(content["values"], template)
    pending = None
    if content["pending"] is not None:
        steps, passed = content["pending"]
        taken = (
            ReplayStep(_unpack_batch(batch), key)
            if leaves is None
            else StoredStep(_like(template.inner, leaves), _unpack_batch(batch), key, grads)
            for leaves, batch, key, grads in steps
        )
        pending = Pending(tuple(taken), passed)
    return TrainState(
        values.inner,
        values.phi,
        values.rule,
        pending,
        GuardState(*content["guard"]),
        Meter(*content["meter"]),
        content.get("ledger"),  # older versions had none
        Averages(*means) if (means := content.get("averages")) else None,
        unpack_tree(content.get("anchor"), template.anchor),
    )


def pack_ladder(ladder: Ladder) -> dict[str, Any]:
    """Return the ladder as plain values."""
    return {
        "good": _pack(ladder.good),
        "start": _pack(ladder.start),
        "events": ladder.events,
        "since": ladder.since,
        "diverged": ladder.diverged,
    }


def unpack_ladder(content: dict[str, Any], template: TrainState, learns: bool) -> Ladder:
    """Return the ladder from the result of :func:`pack_ladder`."""
    return Ladder(
        learns=learns,
        good=_unpack(content["good"], template),
        start=_unpack(content["start"], template),
        events=content["events"],
        since=content["since"],
        diverged=content["diverged"],
    )


def pack_tree(tree: Any) -> list[Any] | None:
    """Return a tree's leaves; None stays None."""
    return None if tree is None else pytree.tree_leaves(tree)


def unpack_tree(leaves: list[Any] | None, template: Any) -> Any:
    """Return the tree of the template's structure with these leaves; None stays None."""
    return None if leaves is None else _like(template, leaves)


def _pack_batch(batch: Batch) -> list[Any]:
    inputs: Any = batch.inputs
    targets = batch.targets
    return [
        inputs.tree if isinstance(inputs, Fields) else inputs,
        named_values(targets) if isinstance(targets, WeightedTargets) else targets,
    ]


def _unpack_batch(content: list[Any]) -> Batch:
    inputs, targets = content
    given: Any = of_values(targets) if isinstance(targets, dict) else targets
    return Batch(as_inputs(inputs), given)


def _pack(values: Snapshot) -> dict[str, Any]:
    return {
        "inner": pytree.tree_leaves(values.inner),
        "phi": pytree.tree_leaves(values.phi),
        "outer": pack_tree(values.rule),
    }


def _unpack(content: dict[str, Any], template: TrainState) -> Snapshot:
    return Snapshot(
        _like(template.inner, content["inner"]),
        _like(template.phi, content["phi"]),
        unpack_tree(content["outer"], template.rule),
    )


def _like(template: Any, leaves: list[Any]) -> Any:
    return pytree.tree_unflatten(leaves, pytree.tree_structure(template))
