"""One segment of a run against loops written by hand, in float64."""

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from metaloss.contracts import Progress
from metaloss.core.guard import GuardState
from metaloss.core.state import Meter, TrainState
from metaloss.losses import MLPLoss
from metaloss.losses.mlp import MLPLossConfig
from metaloss.types import Batch

from .worlds import blobs, net, setup

CPU = torch.device("cpu")


def double_setup(*words):
    """Return a set-up in float64 without dropout, so that a loop by hand is exact."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        loss = MLPLoss(MLPLossConfig(hidden=[6])).double()
    words = (
        "start=keep",
        "inner.lr=0.3",
        "inner.momentum=0.5",
        "meta_optimizer.rule=sgd",
        "meta_optimizer.lr=0.5",
        "meta_optimizer.offline_lr=0.5",
        *words,
    )
    task = blobs(dtype=torch.float64)
    return setup(*words, task=task, model=net().double(), loss=loss)


def first_state(parts):
    phi = {name: value.detach().clone() for name, value in parts.loss.named_parameters()}
    outer = parts.engine.outer_init(phi) if parts.schedule.learns else None
    inner = parts.advance.fresh("train", 0)
    return TrainState(inner, phi, outer, None, GuardState.fresh(CPU), Meter.fresh(CPU))


def run(parts, steps, state=None, progress=None):
    """Follow the schedule as the trainer does; yield the progress and state after each plan."""
    state, progress = state or first_state(parts), progress or Progress()
    while (plan := parts.schedule.plan(progress, steps)) is not None:
        state = parts.advance(state, plan, progress)
        if plan.phase == "offline":
            progress = Progress(offline=progress.offline + 1)
        else:
            progress = Progress(offline=progress.offline, train=progress.train + plan.unroll)
        yield progress, state


class Hand:
    """θ, its momentum and φ, moved by plain autograd: the textbook's two loops."""

    def __init__(self, parts):
        self.streams = parts.advance.streams
        self.net, self.loss = parts.model, parts.loss
        self.phi = {
            name: value.detach().clone().requires_grad_()
            for name, value in parts.loss.named_parameters()
        }
        self.outer = torch.optim.SGD(list(self.phi.values()), lr=0.5)
        self.theta, self.momentum = self.weights(parts.advance.fresh("train", 0))

    def weights(self, inner):
        return dict(inner.params), {name: torch.zeros_like(p) for name, p in inner.params.items()}

    def step(self, batch):
        """Take an inner step with its graph."""
        theta = {name: p.requires_grad_(True) for name, p in self.theta.items()}
        outputs = functional_call(self.net, theta, (batch.inputs,))
        loss = functional_call(self.loss, self.phi, (outputs, batch.targets))
        slopes = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
        self.momentum = {n: 0.5 * self.momentum[n] + g for n, g in zip(theta, slopes, strict=True)}
        self.theta = {name: theta[name] - 0.3 * self.momentum[name] for name in theta}

    def move_phi(self, batch):
        """Move φ by the gradient of the task loss through all steps since :meth:`forget`."""
        outputs = functional_call(self.net, self.theta, (batch.inputs,))
        task = F.cross_entropy(outputs, batch.targets)
        slopes = torch.autograd.grad(task, list(self.phi.values()))
        assert sum(slope.abs().sum() for slope in slopes) > 0
        for value, slope in zip(self.phi.values(), slopes, strict=True):
            value.grad = slope
        self.outer.step()

    def forget(self):
        self.theta = {name: p.detach() for name, p in self.theta.items()}
        self.momentum = {name: m.detach() for name, m in self.momentum.items()}


def same(state, hand, rtol=1e-9):
    for found, expected in ((state.inner.params, hand.theta), (state.phi, hand.phi)):
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value.detach(), rtol=rtol, atol=1e-3 * rtol)


@pytest.mark.parametrize(("unroll", "period"), [(1, 1), (1, 4), (3, 3), (3, 5)])
@pytest.mark.parametrize("judge", ["validation", "train"])
def test_online_equals_a_loop_by_hand(unroll, period, judge):
    parts = double_setup(
        "schedule=online",
        f"schedule.unroll={unroll}",
        f"schedule.period={period}",
        f"schedule.meta_batch={judge}",
    )
    steps = 22
    *_, (_, state) = run(parts, steps)
    hand = Hand(parts)
    rows = parts.task.valid if judge == "validation" else parts.task.train
    for first in range(0, steps, period):
        plain = period - unroll
        for k in range(first, min(first + period, steps)):
            if k == first + plain:
                hand.forget()
            hand.step(hand.streams["train"][k])
        if first + period <= steps:
            meta = hand.streams["meta/train"][first + plain]
            assert all(any(torch.equal(row, one) for one in rows.inputs) for row in meta.inputs)
            hand.move_phi(meta)
    same(state, hand)


def test_online_judged_by_the_next_batch_equals_a_loop_by_hand():
    parts = double_setup("schedule=online", "schedule.meta_batch=next")
    hand = Hand(parts)
    for k, (_, state) in enumerate(run(parts, 12)):
        batch = hand.streams["train"][k]
        if k > 0:
            # The batch of this step judges the step before, and only then is stepped on.
            hand.move_phi(batch)
        hand.forget()
        hand.step(batch)
        same(state, hand)
    # The last step waits for a judge that never comes.
    assert state.pending is not None


def test_the_outer_adam_is_torchs():
    parts = double_setup("schedule=online", "meta_optimizer.rule=adam", "meta_optimizer.lr=0.01")
    *_, (_, state) = run(parts, 8)
    hand = Hand(parts)
    hand.outer = torch.optim.Adam(list(hand.phi.values()), lr=0.01)
    for k in range(8):
        hand.forget()
        hand.step(hand.streams["train"][k])
        hand.move_phi(hand.streams["meta/train"][k])
    # torchopt corrects its bias in float32.
    same(state, hand, rtol=1e-4)


def test_offline_equals_a_loop_by_hand():
    parts = double_setup("schedule=offline", "schedule.offline_steps=5", "schedule.unroll=2")
    hand = Hand(parts)
    for number, (progress, state) in enumerate(run(parts, 4)):
        if progress.train == 0:
            hand.theta, hand.momentum = hand.weights(parts.advance.fresh("offline", number))
            hand.step(hand.streams["offline"][2 * number])
            hand.step(hand.streams["offline"][2 * number + 1])
            hand.move_phi(hand.streams["meta/offline"][number])
        else:
            if progress.train == 1:
                hand.theta, hand.momentum = hand.weights(parts.advance.fresh("train", 0))
            hand.forget()
            hand.step(hand.streams["train"][progress.train - 1])
        same(state, hand)


def test_every_offline_meta_step_begins_with_other_weights():
    parts = double_setup("schedule=offline", "schedule.offline_steps=5")
    starts = [parts.advance.fresh("offline", number).params["0.weight"] for number in (0, 1, 0)]
    assert torch.equal(starts[0], starts[2])
    assert not torch.equal(starts[0], starts[1])
    assert torch.equal(parts.advance.fresh("train", 0).params["0.weight"], parts.model[0].weight)


def test_the_offline_phase_moves_phi_under_every_judge():
    for judge in ("validation", "train", "next"):
        parts = double_setup(
            "schedule=online", "schedule.offline_steps=3", f"schedule.meta_batch={judge}"
        )
        before = first_state(parts).phi["layers.0.weight"]
        for progress, state in run(parts, 1):
            if progress.train == 0:
                assert not torch.equal(state.phi["layers.0.weight"], before), judge
                before = state.phi["layers.0.weight"]


def test_static_equals_torchs_own_loop():
    parts = double_setup("schedule=static")
    *_, (_, state) = run(parts, 15)
    module, streams = net().double(), parts.advance.streams
    optimizer = torch.optim.SGD(module.parameters(), lr=0.3, momentum=0.5)
    for k in range(15):
        batch = streams["train"][k]
        optimizer.zero_grad()
        parts.loss(module(batch.inputs), batch.targets).backward()
        optimizer.step()
    for name, value in module.named_parameters():
        torch.testing.assert_close(state.inner.params[name], value.detach())
    assert all(torch.equal(state.phi[n], p) for n, p in parts.loss.named_parameters())


def test_a_frozen_loss_stays():
    parts = double_setup("schedule=online", "schedule.freeze_after=0.5")
    phis = [state.phi["layers.0.weight"] for _, state in run(parts, 10)]
    assert not torch.equal(phis[3], phis[4])
    assert all(torch.equal(phi, phis[4]) for phi in phis[5:])


def test_the_outer_rate_falls_over_the_meta_steps_that_are_taken():
    words = ("schedule=online", "schedule.period=5", "schedule.freeze_after=0.5", "steps=40")
    parts = double_setup(*words, "meta_optimizer.lr_schedule=linear")
    assert parts.advance.meta_totals == {"offline": 0, "train": 4}
    *_, (_, state) = run(parts, 40)
    assert int(state.outer.taken) == 4


# ------------------------------------------------------------------------- purity, host syncs

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


def test_the_meter_holds_what_was_seen():
    parts = double_setup("schedule=online", "schedule.unroll=2", "schedule.period=3")
    hand_inner, hand_task = [], []
    *_, (_, state) = run(parts, 6)
    hand = Hand(parts)
    for first in (0, 3):
        for k in range(first, first + 3):
            if k == first + 1:
                hand.forget()
            batch = hand.streams["train"][k]
            with torch.no_grad():
                outputs = functional_call(hand.net, hand.theta, (batch.inputs,))
                hand_inner.append(functional_call(hand.loss, hand.phi, (outputs, batch.targets)))
                hand_task.append(F.cross_entropy(outputs, batch.targets))
            hand.step(batch)
        hand.move_phi(hand.streams["meta/train"][first + 1])
    torch.testing.assert_close(state.meter.counts, torch.tensor([6.0, 6.0, 2.0, 2.0]))
    torch.testing.assert_close(state.meter.sums[0], torch.stack(hand_inner).sum().float())
    torch.testing.assert_close(state.meter.sums[1], torch.stack(hand_task).sum().float())


def test_batch_norm_and_dropout_run_in_train_mode():
    parts = setup("schedule=online", model=_random_net())
    states = [state for _, state in run(parts, 3)]
    counts = [int(state.inner.buffers["1.num_batches_tracked"]) for state in states]
    assert counts == [1, 2, 3], "the judge's forward pass leaves no trace"
    batch = Batch(torch.ones(4, 4), torch.zeros(4).long())
    keys = [parts.advance._key("train", number) for number in (0, 1, 0)]
    inner = states[-1].inner
    outputs = [parts.problem.predict(inner.params, inner.buffers, batch, key)[0] for key in keys]
    assert torch.equal(outputs[0], outputs[2])
    assert not torch.equal(outputs[0], outputs[1])
