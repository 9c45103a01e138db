"""A segment changes nothing that it was given, and never waits for the device."""

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from metaloss.contracts import Progress

from ..plain_autograd_loop import first_state, run
from ..small_setups import net, setup

SCHEDULES = [
    ("schedule=static",),
    ("schedule=online",),
    ("schedule=online", "schedule.unroll=3", "meta_optimizer.clip=1.0"),
    ("schedule=online", "schedule.meta_batch=next", "meta_optimizer.lr_schedule=cosine"),
    ("schedule=online", "schedule.offline_steps=2", "inner=adam", "inner.schedule=cosine"),
    ("schedule=offline", "schedule.offline_steps=2", "schedule.unroll=2", "inner=rmsprop"),
]


def _random_net():
    return net(nn.BatchNorm1d(5), nn.Dropout(0.3))


class _Reads(TorchDispatchMode):
    """Counts what makes the host wait for the device."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        masks = name == "index" and any(i is not None and i.dtype is torch.bool for i in args[1])
        if masks or name in ("_local_scalar_dense", "nonzero"):
            self.found.append(name)
        return function(*args, **(kwargs or {}))


@pytest.fixture
def reads(monkeypatch):
    mode = _Reads()
    for name in ("tolist", "numpy", "item", "__bool__", "__float__", "__int__", "__index__"):
        original = getattr(torch.Tensor, name)

        def told(self, *args, _original=original, _name=name):
            mode.found.append(_name)
            return _original(self, *args)

        monkeypatch.setattr(torch.Tensor, name, told)
    return mode


def test_the_detector_sees_every_kind_of_read(reads):
    value = torch.ones(2)
    with reads:
        for read in (
            lambda: value.tolist(),
            lambda: value[0].item(),
            lambda: bool(value[0]),
            lambda: float(value[0]),
            lambda: int(value[0]),
            lambda: value[value > 0],
            lambda: range(3)[torch.tensor(1)],
        ):
            before = len(reads.found)
            read()
            assert len(reads.found) > before


@pytest.mark.parametrize("words", SCHEDULES)
def test_the_host_never_waits_for_the_device(words, reads):
    parts = setup(*words, model=_random_net())
    segments = run(parts, 8)
    # The first forward pass finds out whether the model draws random numbers of its own.
    next(segments)
    reads.found.clear()
    with reads:
        assert len(list(segments)) >= 2
    assert reads.found == []


@pytest.mark.parametrize("words", SCHEDULES)
def test_nothing_given_is_changed(words):
    parts = setup(*words, model=_random_net())
    held = [*parts.loss.parameters(), *parts.model.parameters(), *parts.model.buffers()]
    held += [*parts.task.train, *parts.task.valid]
    generator = torch.get_rng_state()
    progress, state = Progress(), first_state(parts)
    for progress_after, after in run(parts, 8):
        leaves = [x for x in pytree.tree_leaves(state) if isinstance(x, torch.Tensor)] + held
        copies = [leaf.detach().clone() for leaf in leaves]
        versions = [leaf._version for leaf in leaves]
        plan = parts.schedule.plan(progress, 8)
        again = parts.advance(state, plan, progress)
        assert [leaf._version for leaf in leaves] == versions
        assert all(
            torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0))
            for a, b in zip(leaves, copies, strict=True)
        )
        # And the same question has the same answer, bit by bit.
        for one, other in zip(pytree.tree_leaves(again), pytree.tree_leaves(after), strict=True):
            if isinstance(one, torch.Tensor):
                assert torch.equal(one.nan_to_num(7.0), other.nan_to_num(7.0))
                assert not one.requires_grad
            else:
                assert one == other
        progress, state = progress_after, after
    assert torch.equal(torch.get_rng_state(), generator)
