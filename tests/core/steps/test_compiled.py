"""Compiled steps against eager ones, in float64; what is compiled, and how often."""

from collections import Counter

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from metaloss.contracts import Progress
from metaloss.core.compilation.program import Compiled
from metaloss.core.steps.advance import Advance
from metaloss.core.steps.compiled import CompiledStep
from metaloss.core.steps.stacked import StackedAdvance
from metaloss.core.training.trainer import Trainer
from metaloss.inner.stacked import member, stack
from metaloss.losses import MLPLoss
from metaloss.losses.mlp import MLPLossConfig
from metaloss.types import StoredStep

from ..plain_autograd_loop import double_setup, first_state, run
from ..small_setups import blobs, net, resident_bytes, setup, train

CASES = {
    "static": ("schedule=static",),
    "online": ("schedule=online",),
    "adam": ("schedule=online", "inner=adam", "inner.lr=0.01"),
    "nesterov": ("schedule=online", "inner.nesterov=true", "inner.weight_decay=0.01"),
    "period": ("schedule=online", "schedule.period=3"),
    "next": ("schedule=online", "schedule.meta_batch=next", "schedule.period=2"),
    "unroll": ("schedule=online", "schedule.unroll=3", "schedule.period=4"),
    "next, unroll": ("schedule=online", "schedule.unroll=2", "schedule.meta_batch=next"),
    "judged": (
        "schedule=online",
        "schedule.unroll_end=4",
        "schedule.judge_at=[1,2]",
        "meta_optimizer.anchor=0.5",
    ),
    "offline": ("schedule=offline", "schedule.offline_steps=3", "schedule.unroll=2"),
    "differences": ("schedule=online", "meta_optimizer=finite_difference"),
    "cosine": ("schedule=online", "meta_optimizer.rule=adam", "meta_optimizer.lr_schedule=cosine"),
}


def same(found, expected):
    found, expected = pytree.tree_leaves(found), pytree.tree_leaves(expected)
    assert len(found) == len(expected)
    moving = 0
    for one, other in zip(found, expected, strict=True):
        if other is None:
            assert one is None
            continue
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12, equal_nan=True)
        moving += one.requires_grad
    assert not moving


def parts(case, *more, **given):
    if case == "adam":
        return setup("start=keep", "meta_optimizer.lr=0.5", *CASES[case], *more)
    return double_setup(*CASES[case], *more, **given)


@pytest.mark.parametrize("case", CASES)
def test_traced_steps_equal_eager_ones(case):
    eager, traced = parts(case), parts(case, "compile=trace")
    assert isinstance(traced.advance.step, CompiledStep)
    begun = eager.anchored(first_state(eager))
    both = run(eager, 9, begun), run(traced, 9, begun)
    for (_, expected), (_, found) in zip(*both, strict=True):
        if case == "adam":  # a run of the library's own, in single precision
            torch.testing.assert_close(found.phi, expected.phi, rtol=1e-4, atol=1e-5)
        else:
            same(found, expected)
    assert traced.advance.step.compile_seconds > 0


FEW = "meta_optimizer.checkpointing=sqrt"


@pytest.mark.parametrize("words", [("online",), ("next",), ("unroll",), ("unroll", FEW)])
def test_traced_steps_keep_buffers_and_draw_the_same_masks(words):
    eager, traced = noisy(words[0]), noisy(*words, "compile=trace")
    for (_, expected), (_, found) in zip(run(eager, 6), run(traced, 6), strict=True):
        same(found, expected)
    assert int(found.inner.buffers["1.num_batches_tracked"]) == 6


def test_traced_steps_that_wait_for_their_meta_batch_are_taken_again_as_they_were():
    """What follows a step that shared a forward pass, which no program holds, is kept."""
    words = ("schedule=online", "schedule.unroll=5", "schedule.meta_batch=next")
    words = (*words, "schedule.judge_at=[1,3]")
    eager, traced = double_setup(*words), double_setup(*words, FEW, "compile=trace")
    kept = []
    for (_, expected), (_, found) in zip(run(eager, 11), run(traced, 11), strict=True):
        same((found.phi, found.inner), (expected.phi, expected.inner))
        if found.pending is not None:
            kept.append([isinstance(one, StoredStep) for one in found.pending.steps])
    assert kept == [[True, False, False, True, True], [True, True, False, True, True]]


@pytest.mark.parametrize("case", ["online", "unroll"])
def test_many_seeds_are_traced_as_one(case):
    members = [parts(case, f"seed={seed}", "compile=trace") for seed in (0, 1)]
    together = StackedAdvance([one.advance for one in members])
    states, progress = stack([first_state(one) for one in members]), Progress()
    alone = [run(parts(case, f"seed={seed}"), 8) for seed in (0, 1)]
    while plan := members[0].schedule.plan(progress, 8):
        states = together(states, plan, progress)
        progress = Progress(train=progress.train + plan.unroll)
        for index, one in enumerate(alone):
            same(member(states, index)._replace(guard=None), next(one)[1]._replace(guard=None))
    assert together.compile_seconds > 0


def convolved():
    """A network whose convolutions a compiler may lay out anew, and pull back."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)),
        nn.Conv2d(1, 3, 2, padding=1),
        nn.BatchNorm2d(3),
        nn.Dropout(0.3),
        nn.Tanh(),
        nn.Conv2d(3, 4, 2),
        nn.Flatten(),
        nn.Linear(16, 3),
    )


def test_a_compiled_run_equals_an_eager_one_and_is_compiled_once():
    eager = noisy("online", layers=convolved)
    compiled = noisy("online", "compile=on", layers=convolved)
    counters["inductor"].clear()
    compiled_states = run(compiled, 300)
    for (_, expected), (_, found) in zip(run(eager, 20), compiled_states, strict=False):
        same(found, expected)
    seconds = compiled.advance.step.compile_seconds
    held = []
    for progress, _ in compiled_states:
        if progress.train in (150, 300):
            held.append(resident_bytes())
    # A step's values left behind would be some 100 kB, 15 MB over 150 steps.
    assert held[1] - held[0] < 5e6
    assert len(compiled.advance.step.whole.programs) == 1
    assert compiled.advance.step.compile_seconds == seconds
    # Another process finds on the disk what the compiler made here.
    assert not counters["inductor"]["fxgraph_cache_bypass"]
    assert counters["inductor"]["fxgraph_cache_hit"] + counters["inductor"]["fxgraph_cache_miss"]


@pytest.mark.parametrize("kind", ["trace", pytest.param("on", marks=pytest.mark.faults)])
def test_compiled_windows_equal_eager_ones_and_are_compiled_once(kind):
    compiled = parts("unroll", f"compile={kind}")
    states = run(compiled, 60)
    for (_, expected), (_, found) in zip(run(parts("unroll"), 12), states, strict=False):
        same(found, expected)
    seconds = compiled.advance.step.compile_seconds
    assert seconds > 0
    for _ in states:
        pass
    assert compiled.advance.step.compile_seconds == seconds


def batch_normalised():
    return net(nn.BatchNorm1d(5), nn.Dropout(0.3))


def noisy(case, *more, layers=batch_normalised):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        model = layers().double()
    words = ("start=keep", "inner.lr=0.3", "meta_optimizer.rule=sgd", "meta_optimizer.lr=0.5")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        loss = MLPLoss(MLPLossConfig(hidden=[6])).double()
    task = blobs(dtype=torch.float64)
    return setup(*words, *CASES[case], *more, task=task, model=model, loss=loss)


def test_one_tensor_in_two_places_may_be_two_later():
    """As if one batch is given for the step and the meta-step, and then two are."""
    function = Compiled(lambda x, y: x - 2 * y, compiles=False)
    x, y = torch.ones(2), torch.full((2,), 3.0)
    assert function(x, x).tolist() == [-1.0, -1.0]
    assert function(x, y).tolist() == [-5.0, -5.0]
    assert len(function.programs) == 1


def test_an_input_that_comes_back_unchanged_is_no_work():
    function = Compiled(lambda x, y: (x, y * 2, None, x), compiles=False)
    x, y = torch.ones(2), torch.ones(3)
    found = function(x, y)
    assert found[0] is x
    assert found[3] is x
    assert found[2] is None
    torch.testing.assert_close(found[1], 2 * y)
    (program,) = function.programs.values()
    (output,) = (node for node in program.graph.graph.nodes if node.op == "output")
    assert len(output.args[0]) == 1


def test_other_shapes_and_other_words_are_other_programs():
    function = Compiled(lambda x, factor: x * factor, compiles=False)
    for size, factor in ((2, 1.0), (2, 1.0), (3, 1.0), (3, 5.0), (3, 1.0)):
        torch.testing.assert_close(function(torch.ones(size), factor), torch.ones(size) * factor)
    assert len(function.programs) == 3


def test_a_step_runs_the_model_as_often_as_the_method_says():
    """Two layers: 2 convolutions in each of the inner pass and the task loss, and in the
    forward-mode pass two tangents a layer, its input's and its filters': but the model's own
    inputs have none. Its primal is the inner pass, which is not run again.
    """
    model = nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 2, 1), nn.Conv2d(2, 3, 2), nn.Flatten()
    )
    counts = {}
    for meta_batch in ("validation", "next"):
        words = (
            "schedule=online",
            f"schedule.meta_batch={meta_batch}",
            "start=random",
            "compile=trace",
        )
        made = setup(*words, model=model)
        *_, _ = run(made, 3)
        (program,) = made.advance.step.whole.programs.values()
        counts[meta_batch] = Counter(str(node.target) for node in program.graph.graph.nodes)
    assert counts["validation"]["aten.convolution.default"] == 2 + 2 + 3
    assert counts["next"]["aten.convolution.default"] == 2 + 2 + 3
    for found in counts.values():
        assert found["aten.convolution_backward.default"] == 4


class Waits(TorchFunctionMode):
    """Counts what makes the host wait for the device."""

    names = frozenset({"item", "tolist", "__bool__", "__float__", "__int__", "cpu", "numpy"})

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.count += getattr(function, "__name__", "") in self.names
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("words", [(), ("compile=trace",)])
def test_the_host_waits_once_for_each_line_of_the_journal(words, tmp_path, monkeypatch):
    steps = ["steps=200", "log_every=50", "eval_every=200", "checkpoint_every=1000"]
    counts = {}
    real = Trainer.took

    def took(self, plan, state, seconds, compiled=0.0):
        # Evaluations and checkpoints are read whole: only the steps in between are counted.
        due = (self.progress.train + 1) % 200 == 0
        with Waits() as waits:
            real(self, plan, state, seconds, compiled)
        if not due:
            counts[self.progress.train] = waits.count

    monkeypatch.setattr(Trainer, "took", took)
    # Targets are looked at only where that costs nothing, which is not on a GPU.
    # So is the guard's verdict.
    for place in ("metaloss.losses.base", "metaloss.core.steps.guard"):
        monkeypatch.setattr(f"{place}.readable", lambda _: False)
    run_ = Advance.__call__

    def advanced(self, state, plan, progress):
        with Waits() as waits:
            new = run_(self, state, plan, progress)
        # Tracing and the first step may look at what they like.
        assert progress.train == 0 or waits.count == 0
        return new

    monkeypatch.setattr(Advance, "__call__", advanced)
    train(tmp_path, "schedule=online", *steps, *words)
    assert {step for step, count in counts.items() if count} == {50, 100, 150}
    assert max(counts.values()) == 1  # the meter and the guard's count are read together
