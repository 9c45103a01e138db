"""Processes of a user's own loop that meet: what they bring, and what they are told."""

import os
from contextlib import contextmanager

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from metaloss.core.distributed.alike import check_rows
from metaloss.core.distributed.launch import present
from metaloss.core.distributed.peers import Peers
from metaloss.errors import MetalossError
from metaloss.inner import SGD
from metaloss.inner.model.functional import FunctionalModel
from metaloss.inner.processes.ranks import LostRankError
from metaloss.inner.sharded import ShardedProblem
from metaloss.losses import MLPLoss
from metaloss.types import Batch, InnerState

from ..core.small_setups import net

RANK = int(os.environ.get("RANK", 0))


@contextmanager
def group(folder, backend="gloo"):
    """Make a process group as a user's program does; none in a process without a launcher."""
    if "RANK" not in os.environ:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    size = int(os.environ["WORLD_SIZE"])
    dist.init_process_group(
        backend, init_method=f"file://{folder / 'group'}", rank=RANK, world_size=size
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


def _batch(rows, *, first=0, dtype=torch.float32, width=4):
    inputs = torch.arange(first * width, (first + rows) * width).reshape(rows, width).to(dtype)
    return Batch(inputs, torch.arange(first, first + rows))


def _peers(values=None, **settings):
    held = [torch.zeros(2)] if values is None else values
    return Peers(lambda: {"model": held}, settings)


def rows(folder):
    """What the rows of all types come to: rank 0 has one of five, rank 1 three, rank 2 one."""
    found = {}
    with group(folder):
        peers = _peers()
        first, end = [(0, 1), (1, 4), (4, 5)][RANK] if peers.ranks.size > 1 else (0, 5)
        for dtype in (torch.float64, torch.bfloat16, torch.uint8, torch.int16, torch.bool):
            given = _batch(end - first, first=first, dtype=dtype)
            # Two batches a step, and one rank of the second has no rows.
            none = given if RANK != 2 or peers.ranks.size == 1 else _batch(0, dtype=dtype)
            (one, two), meta = peers.whole(lambda g=given, n=none: ((g, n), g), 0)  # type: ignore[misc]
            assert torch.equal(meta.inputs, one.inputs)
            found |= {f"{dtype}": one.inputs, f"{dtype} targets": one.targets}
            found |= {f"{dtype} two": two.inputs[:4]}
    return found


def _refusal(call):
    with pytest.raises(MetalossError) as caught:
        call()
    return str(caught.value)


def _others():
    return _peers([torch.full((2,), float(RANK))])


def _other_setting():
    return _peers(inner=SGD(lr=0.1 + RANK))


def _written():
    """One rank writes into a weight between two steps."""
    values = [torch.zeros(2)]
    peers = _peers(values)
    peers.whole(lambda: ((_batch(2),), None), 0)
    values[0].add_(1)
    peers.took()
    peers.whole(lambda: ((_batch(2),), None), 1)
    # The same in every process: it goes on.
    values[0].mul_(3)
    peers.whole(lambda: ((_batch(2),), None), 2)
    if RANK == 1:
        values[0].mul_(2)
    peers.whole(lambda: ((_batch(2),), None), 3)


def _replaced():
    """One rank puts another tensor in a weight's place."""
    values = [torch.zeros(2)]
    peers = _peers(values)
    if RANK == 0:
        values[0].data = torch.ones(2)
    peers.whole(lambda: ((_batch(2),), None), 0)


def _wrong_rows():
    """One rank's own batch is at fault."""
    batch = _batch(3)
    batch = batch._replace(targets=batch.targets[: 3 - RANK])
    _peers().whole(lambda: ((batch,), None), 0)


def _breaks():
    def given():
        if RANK == 1:
            raise OSError("no such file")
        return (_batch(2),), None

    try:
        _peers().whole(given, 0)
    except OSError as error:
        raise MetalossError(f"told as it is: {error}") from error


def _uneven(*batches, meta=None, step=0):
    return lambda: _peers().whole(lambda: (batches, meta), step)


def _model(*parts):
    """A model that is tried on rows, as a whole and in shares."""
    model = FunctionalModel(net(*parts), shared=True)
    given = {"model": model, "loss": MLPLoss(), "task_loss": F.cross_entropy, "optimizer": SGD()}
    problem = ShardedProblem(**given, ranks=_peers().ranks)
    state = InnerState(*model.state(), None)
    draw = torch.Generator().manual_seed(0)
    batch = Batch(torch.randn(8, 4, generator=draw), torch.arange(8) % 3)
    check_rows(problem, state, batch, torch.tensor(1))


class _Centred(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


class _Noisy(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5, self.training)


REFUSED = {
    "others": (_others, "rank 1 has another model than rank 0"),
    "setting": (_other_setting, "rank 1 has another inner than rank 0"),
    "written": (_written, "rank 1 has another model than rank 0"),
    "replaced": (_replaced, "rank 1 has another model than rank 0"),
    "wrong rows": (_wrong_rows, "a batch has 3 inputs and 2 targets"),
    "breaks": (_breaks, "no such file"),
    "steps": (_uneven(_batch(2), step=RANK), "rank 1 has taken 1 steps, rank 0 0"),
    "shapes": (
        _uneven(_batch(2, width=4 + RANK)),
        "rank 1 got inputs (B, 5) of torch.float32 on a cpu, rank 0 (B, 4)",
    ),
    "types": (
        _uneven(_batch(2, dtype=[torch.float32, torch.float64][RANK % 2])),
        "rank 1 got inputs (B, 4) of torch.float64",
    ),
    "counts": (
        _uneven(*[_batch(2)] * (1 + RANK)),
        "rank 1 got 2 training batches, rank 0 1",
    ),
    "meta": (
        _uneven(_batch(2), meta=None if RANK else _batch(2)),
        "rank 0 got a meta_batch, rank 1 none",
    ),
    "few": (_uneven(_batch(int(RANK == 0))), "a batch has 1 rows in total: expected one or more"),
    "centred": (lambda: _model(_Centred()), "depend on which rows a process has"),
    "noisy": (lambda: _model(_Noisy()), "draws random numbers outside of nn.Dropout"),
}


def refused(folder):
    """What each process is told of each fault."""
    with group(folder):
        return {name: _refusal(call) for name, (call, _) in REFUSED.items()}


def shared(folder):
    """Models whose work can be shared are told nothing."""
    with group(folder):
        _model(nn.BatchNorm1d(5), nn.Dropout(0.3))
        plain = nn.BatchNorm1d(5, track_running_stats=False).eval()
        _model(plain)
        return True


def words(folder):
    """Plain words in a group that speaks between GPUs alone, as NCCL's does."""
    with group(folder, "cuda:gloo"):
        ranks = present()
        found = {"any": ranks.any(ranks.rank == 1), "every": ranks.every(ranks.rank)}
        found["again"] = present().words is ranks.words is not None
    return {**found, "kept": ranks.words() is not None}


def lost(folder):
    """One process leaves for good while the other waits for its rows."""
    with group(folder):
        peers = _peers()
        if RANK == 1:
            return "left"
        with pytest.raises(LostRankError) as caught:
            peers.whole(lambda: ((_batch(2),), None), 0)
        return str(caught.value)
