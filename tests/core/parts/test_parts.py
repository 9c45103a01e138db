"""Fresh weights, the device, whole splits, curves: the small parts of the core."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from metaloss.core.parts.numerics import numerics
from metaloss.core.parts.runtime import resolve_device, seeded
from metaloss.core.parts.weights import Weights, reset
from metaloss.core.training.curves import loss_curves
from metaloss.core.training.evaluate import constant_metric, evaluate, outputs_of
from metaloss.errors import MetalossError
from metaloss.inner.model.functional import FunctionalModel
from metaloss.losses import MSE, CrossEntropy, MLPLoss
from metaloss.types import Batch, InnerState

from ..small_setups import blobs, line, net

# ------------------------------------------------------------------------------------- weights


def test_fresh_weights_depend_on_seed_phase_and_number_alone():
    def first(seed=0, phase="offline", number=0):
        return Weights.of(net(nn.BatchNorm1d(5)), seed)(phase, number)[0].weight

    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert torch.equal(first(), first())
    for other in ({"seed": 1}, {"phase": "train "}, {"number": 1}):
        assert not torch.equal(first(), first(**other))
    assert torch.equal(torch.get_rng_state(), before)


def test_fresh_weights_are_drawn_like_the_layers_own():
    draws = torch.stack([Weights.of(nn.Linear(4, 5), 0)("offline", k).weight for k in range(400)])
    # nn.Linear draws uniformly from ±1/√4.
    assert draws.abs().max() <= 0.5
    assert abs(draws.mean()) < 0.01
    assert draws.std().item() == pytest.approx(0.5 / np.sqrt(3), rel=0.02)


def test_training_begins_with_the_users_module_itself():
    model = net()
    weights = Weights.of(model, 0)
    assert weights("train", 0) is model
    assert weights("offline", 0) is not model
    assert torch.equal(model[0].weight, net()[0].weight)


def test_buffers_are_reset_as_well():
    model = net(nn.BatchNorm1d(5))
    model(torch.randn(8, 4, generator=torch.Generator().manual_seed(0)))
    assert int(model[1].num_batches_tracked) == 1
    fresh = Weights.of(model, 0)("offline", 0)
    assert int(fresh[1].num_batches_tracked) == 0
    assert torch.equal(fresh[1].running_mean, torch.zeros(5))


def test_a_part_that_cannot_be_reset_is_named():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

    with pytest.raises(MetalossError, match=r"the model's part '1' \(Own\) has parameters but"):
        reset(nn.Sequential(nn.Linear(4, 3), Own()))
    with pytest.raises(MetalossError, match=r"the model's part 'itself' \(Own\)"):
        reset(Own())


# ------------------------------------------------------------------------------------- runtime


def test_devices_by_name():
    assert resolve_device("cpu") == torch.device("cpu")
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert resolve_device("auto").type == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu", "device=gpu: expected auto, cpu, cuda or cuda:N"),
        ("mps", "device=mps: expected auto, cpu, cuda or cuda:N"),
        ("cuda:99", r"device=cuda:99: this machine has \d+ CUDA devices"),
    ],
)
def test_devices_that_are_not_there(name, message):
    with pytest.raises(MetalossError, match=message):
        resolve_device(name)


def test_a_seeded_block_leaves_the_global_generator_as_it_was():
    before = torch.get_rng_state()
    with seeded(0, "purpose"):
        first = torch.rand(3)
    with seeded(0, "purpose"):
        assert torch.equal(torch.rand(3), first)
    with seeded(0, "other purpose"):
        assert not torch.equal(torch.rand(3), first)
    assert torch.equal(torch.get_rng_state(), before)


def test_determinism_ends_with_the_block():
    assert not torch.are_deterministic_algorithms_enabled()
    with suppress(KeyError), numerics(deterministic=True, tf32=None):
        assert torch.are_deterministic_algorithms_enabled()
        raise KeyError
    assert not torch.are_deterministic_algorithms_enabled()
    with numerics(deterministic=True, tf32=None), numerics(deterministic=False, tf32=None):
        assert torch.are_deterministic_algorithms_enabled(), "never switched off for the user"


def test_a_user_s_warnings_about_determinism_stay():
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with numerics(deterministic=True, tf32=None):
            assert torch.get_deterministic_debug_mode() == 2
        assert torch.get_deterministic_debug_mode() == 1
    finally:
        torch.use_deterministic_algorithms(False)


def test_two_threads_share_settings_until_the_last_one_ends():
    with ThreadPoolExecutor(1) as other:
        block = numerics(deterministic=True, tf32=None)
        other.submit(block.__enter__).result()
        with numerics(deterministic=True, tf32=None):
            other.submit(block.__exit__, None, None, None).result()
            assert torch.are_deterministic_algorithms_enabled(), "the other's end is not ours"
        assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("settings", [(False, None), (True, True)])
def test_two_threads_do_not_compute_with_different_settings(settings):
    deterministic, tf32 = settings
    with ThreadPoolExecutor(1) as other:
        block = numerics(deterministic=True, tf32=None)
        other.submit(block.__enter__).result()
        message = f"deterministic={str(deterministic).lower()}, tf32=.*: another thread computes"
        with (
            pytest.raises(MetalossError, match=message),
            numerics(deterministic=deterministic, tf32=tf32),
        ):
            pass
        other.submit(block.__exit__, None, None, None).result()
    assert not torch.are_deterministic_algorithms_enabled()
    with numerics(deterministic=deterministic, tf32=tf32):
        assert torch.are_deterministic_algorithms_enabled() is deterministic


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_is_not_bound_by_a_thread_that_it_does_not_have():
    inside, leave = threading.Event(), threading.Event()

    def compute():
        with numerics(deterministic=True, tf32=None):
            inside.set()
            leave.wait(20)

    thread = threading.Thread(target=compute)
    thread.start()
    assert inside.wait(20)
    child = os.fork()
    if child == 0:
        with suppress(BaseException), numerics(deterministic=False, tf32=True):
            os._exit(0)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    leave.set()
    thread.join()
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.parametrize(("tf32", "word"), [(True, "tf32"), (False, "ieee")])
def test_tf32_is_asked_for_inside_the_block_alone(tf32, word):
    products = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [one.fp32_precision for one in products]
    with suppress(KeyError), numerics(deterministic=False, tf32=tf32):
        assert [one.fp32_precision for one in products] == [word, word]
        raise KeyError
    assert [one.fp32_precision for one in products] == before
    with numerics(deterministic=False, tf32=None):
        assert [one.fp32_precision for one in products] == before


# ---------------------------------------------------------------------------------- evaluation


def test_evaluation_in_blocks_equals_the_whole(monkeypatch):
    model = net(nn.BatchNorm1d(5), nn.Dropout(0.5))
    functional = FunctionalModel(model)
    state = InnerState(*functional.state(), None)
    task = blobs()
    expected = model.eval()(task.test.inputs)
    monkeypatch.setattr("metaloss.core.training.evaluate._ROWS_AT_ONCE", 7)
    torch.testing.assert_close(outputs_of(functional, state, task.test.inputs), expected.detach())
    found = evaluate(functional, state, task, {"test": task.test})
    assert {*found} == {"test/error", "test/task_loss"}
    assert found["test/error"] == task.metric(expected, task.test.targets)
    assert not found["test/task_loss"].requires_grad


def test_the_best_constant_prediction_of_classes_is_the_most_frequent():
    task = blobs()
    targets = task.train.targets.clone()
    targets[:40] = 2
    task = replace(task, train=Batch(task.train.inputs, targets))
    share = (task.valid.targets == 2).float().mean().item()
    assert constant_metric(task) == pytest.approx(1 - share)


def test_the_best_constant_prediction_of_values_is_their_mean():
    task = line()
    expected = ((task.valid.targets - task.train.targets.mean(0)) ** 2).mean().item()
    assert constant_metric(task) == pytest.approx(expected, rel=1e-5)


# -------------------------------------------------------------------------------------- curves


def test_curves_of_cross_entropy_are_logarithms():
    grid, curves = loss_curves(CrossEntropy(), {})
    p = np.array(grid)
    assert (p[0], p[-1], len(p)) == (pytest.approx(0.005), pytest.approx(0.995), 101)
    np.testing.assert_allclose(curves["t=1"], -np.log(p), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(curves["t=0"], 0, atol=1e-6)
    _, curves = loss_curves(CrossEntropy(link="sigmoid"), {})
    np.testing.assert_allclose(curves["t=0"], -np.log1p(-p), rtol=1e-4, atol=1e-6)


def test_curves_of_squared_error_are_parabolas():
    grid, curves = loss_curves(MSE(link="identity"), {})
    assert {*curves} == {"t=0"}
    assert (grid[0], grid[-1]) == (-3, 3)
    np.testing.assert_allclose(curves["t=0"], np.array(grid) ** 2, rtol=1e-5, atol=1e-6)


def test_curves_are_those_of_the_phi_given():
    loss = MLPLoss(link="softmax")
    phi = {name: torch.zeros_like(value) for name, value in loss.named_parameters()}
    _, curves = loss_curves(loss, phi)
    assert {*curves["t=1"]} == {0.0}
    before = {name: value.detach().clone() for name, value in loss.named_parameters()}
    _, curves = loss_curves(loss, before)
    grid = torch.linspace(0.005, 0.995, 101)
    with torch.no_grad():
        expected = loss.pointwise(grid[:, None], torch.ones(101, 1))[:, 0]
    np.testing.assert_allclose(curves["t=1"], expected.numpy(), rtol=1e-4, atol=1e-5)
