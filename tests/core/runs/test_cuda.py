"""What a GPU computes against the CPU in float64; between two logs nothing waits for it."""

from contextlib import contextmanager

import pytest
import torch
from torch._dynamo.utils import counters
from torch.utils import _pytree as pytree

import metaloss
from metaloss.core.batches.streams import BatchStream, in_one_launch
from metaloss.core.runs.stackable import check_stackable
from metaloss.core.steps.stacked import StackedAdvance
from metaloss.data.augment import CropFlipCutout
from metaloss.inner.keys import key_tensor
from metaloss.inner.stacked import member, stack
from metaloss.types import Batch

from ..plain_autograd_loop import double_setup, first_state, run
from ..small_setups import blobs, files_of, net, setup, train
from ..steps.test_compiled import CASES, convolved, noisy
from . import test_seeds

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype:UserWarning"),
    # torch begins with a graph of nothing, and hides what it then says unless warnings are errors.
    pytest.mark.filterwarnings("ignore:The CUDA Graph is empty:UserWarning"),
]
ENGINES = ("mixed", "torchopt", "higher", "finite_difference")
GPU, CPU = "device=cuda", "device=cpu"


def same(found, expected, rtol=1e-9, atol=1e-12):
    """Compare two states, wherever they are."""
    found, expected = pytree.tree_leaves(found), pytree.tree_leaves(expected)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        if other is None:
            assert one is None
            continue
        torch.testing.assert_close(
            one.cpu(), other.cpu(), rtol=rtol, atol=atol, equal_nan=True, check_dtype=True
        )


def compare(one, other, steps=6):
    for (_, expected), (_, found) in zip(run(one, steps), run(other, steps), strict=True):
        # Means in the meter and the guard's memory are single precision's.
        same((found.phi, found.inner, found.rule), (expected.phi, expected.inner, expected.rule))
    return found


@contextmanager
def no_waiting():
    """Raise wherever the host waits for the device."""
    torch.cuda.synchronize()
    try:
        torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_moves_the_loss_as_on_the_cpu(engine):
    words = ("schedule=online", f"meta_optimizer={engine}", "compile=off")
    found = compare(double_setup(*words, CPU), double_setup(*words, GPU))
    assert all(value.is_cuda for value in found.phi.values())


def test_masks_and_statistics_are_the_cpu_s():
    found = compare(
        noisy("online", "compile=off", CPU, layers=convolved),
        noisy("online", "compile=off", GPU, layers=convolved),
    )
    assert all(value.is_cuda for value in found.inner.buffers.values())


@pytest.mark.parametrize("case", [name for name in CASES if name not in ("adam", "offline")])
def test_compiled_steps_equal_the_cpu_s(case):
    counters["inductor"].clear()
    compiled = double_setup(*CASES[case], "compile=on", GPU)
    compare(double_setup(*CASES[case], "compile=off", CPU), compiled, steps=9)
    assert compiled.advance.step.compile_seconds > 0
    assert not counters["inductor"]["cudagraph_skips"]


def test_compiled_convolutions_and_masks_are_the_cpu_s():
    compare(
        noisy("online", "compile=off", CPU, layers=convolved),
        noisy("online", "compile=on", GPU, layers=convolved),
    )


@pytest.mark.parametrize("compiled", ["on", "trace", "off"])
def test_the_host_never_waits_between_two_logs(compiled):
    parts = noisy("online", f"compile={compiled}", GPU, layers=convolved)
    states = run(parts, 60)
    for _ in range(5):
        next(states)
    with no_waiting():
        for _ in range(20):  # two epochs of training rows begin, and seven of validation rows
            progress, _ = next(states)
    assert progress.train == 25


def test_the_check_for_waiting_can_fail():
    with no_waiting(), pytest.raises(RuntimeError, match="synchroniz"):
        torch.ones((), device="cuda").item()


def test_long_runs_neither_grow_nor_compile_again():
    parts = noisy("online", "compile=on", GPU, layers=convolved)
    states = run(parts, 520)
    for _ in range(20):
        next(states)
    torch.cuda.synchronize()
    seconds, before = parts.advance.step.compile_seconds, torch.cuda.memory_allocated()
    for _ in states:
        pass
    torch.cuda.synchronize()
    # The order of an epoch's rows may lie elsewhere than before.
    assert torch.cuda.memory_allocated() - before < 1e5
    assert parts.advance.step.compile_seconds == seconds
    assert len(parts.advance.step.whole.programs) == 1


@pytest.mark.parametrize("words", [("compile=off",), ("compile=on",), ("precision=bf16",)])
def test_a_stopped_run_ends_as_one_that_was_not(tmp_path, words):
    words = ("schedule=online", "steps=40", "checkpoint_every=20", GPU, *words)
    whole = train(tmp_path / "whole", *words)
    part = train(tmp_path / "part", *words, "steps=20")
    assert files_of(part) != files_of(whole)
    resumed = metaloss.resume_run(tmp_path / "part", steps=40, task=blobs(), model=net())
    assert files_of(resumed) == files_of(whole)


@pytest.mark.parametrize("compiled", ["on", "off"])
def test_seeds_together_are_the_seeds_alone(compiled):
    words = ("schedule=online", f"compile={compiled}", GPU)
    setups = [test_seeds.double(seed, *words) for seed in test_seeds.SEEDS]
    check_stackable(setups)
    together = StackedAdvance([parts.advance for parts in setups])
    states = stack([first_state(parts) for parts in setups])
    states = test_seeds.walk(setups[0], together, states)
    for index, seed in enumerate(test_seeds.SEEDS):
        alone = test_seeds.double(seed, "schedule=online", "compile=off", CPU)
        expected = test_seeds.walk(alone, alone.advance, first_state(alone))
        found = member(states, index)
        same((found.phi, found.inner), (expected.phi, expected.inner))


@pytest.mark.parametrize("quick", [False, True])
def test_rows_and_pictures_are_drawn_as_on_the_cpu(quick):
    crops = CropFlipCutout(padding=2, flip=True, cutout=3)
    augment = {"cpu": crops, "cuda": in_one_launch(crops) if quick else crops}
    pictures, labels = torch.randn(23, 3, 8, 8), torch.arange(23)
    found, expected = (
        BatchStream(
            Batch(pictures.to(device), labels.to(device)),
            size=5,
            seed=3,
            purpose="train",
            augment=augment[device],
        )
        for device in ("cuda", "cpu")
    )
    for number in range(9):
        same(found[number], expected[number], rtol=0, atol=0)
    key = key_tensor(0, "here", device="cuda")
    assert key.is_cuda
    assert int(key) == int(key_tensor(0, "here", device="cpu"))


@pytest.mark.parametrize("compiled", ["on", "off"])
def test_narrow_arithmetic_and_channels_last_stay_near(compiled):
    wide = single("compile=off")
    narrow = single("precision=bf16", "channels_last=true", f"compile={compiled}")
    for (_, expected), (_, found) in zip(run(wide, 3), run(narrow, 3), strict=True):
        for name, value in expected.inner.params.items():
            assert found.inner.params[name].dtype == value.dtype == torch.float32
            torch.testing.assert_close(found.inner.params[name], value, rtol=0.1, atol=0.02)
    assert not torch.equal(found.inner.params["1.weight"], expected.inner.params["1.weight"])


def single(*words):
    """Return a set-up of a convolutional network in single precision."""
    words = ("schedule=online", "start=random", "inner.lr=0.1", *words)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        model = convolved()
    return setup(*words, GPU, model=model)
