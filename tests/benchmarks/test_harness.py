"""The harness itself: turns, memory, pages. How long things take is for ``make bench`` alone."""

import json
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

import metaloss
from benchmarks import cases, ours, rivals
from benchmarks.__main__ import on_cpu, on_gpu
from benchmarks.measure import in_turns, peak_bytes
from benchmarks.report import page
from benchmarks.workloads import EVERY, WORKLOADS
from metaloss.inner import SGD

from .. import forked

MACHINE = {"device": "one", "torch": "2"}


def test_calls_take_turns():
    order = []
    calls = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    found = in_turns(calls, rounds=3, repeat=2)
    assert "".join(order) == "aabb" * 3
    assert all(0 <= one.low <= one.median <= one.high for one in found.values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="measures the process's own memory")
def test_the_peak_is_what_a_call_allocates_and_lets_go():
    def call():
        torch.ones(64_000_000)

    assert peak_bytes(call) == pytest.approx(256e6, rel=0.1)


def test_every_case_is_there_and_every_workload_can_be_built():
    for _, function, _ in [*on_cpu(), *on_gpu()]:
        assert callable(getattr(cases, function))
    for work in EVERY.values():
        inputs, targets = work.rows(2)
        outputs = work.build()(inputs)
        assert outputs.shape[:2] == (2, work.outputs)
        assert F.cross_entropy(outputs, targets).isfinite()


def test_candidates_have_the_same_fitness_together_as_in_turn():
    found = cases.population(3, 5, 1)
    assert found["apart"] < 1e-4


def test_the_loop_over_classes_is_the_loss_at_once():
    slow, fast = rivals.PerClass().double(), cases.MLPLoss().double()
    fast.load_state_dict({k: v for k, v in slow.state_dict().items() if k != "layers.2.bias"})
    outputs, targets = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0, 1])
    # The loop has a last bias, which moves no gradient.
    torch.testing.assert_close(
        slow(outputs, targets) - slow.layers[-1].bias.squeeze(), fast(outputs, targets)
    )


@pytest.mark.parametrize("rival", [rivals.with_higher, rivals.with_torchopt])
def test_the_rivals_compute_the_meta_gradient_that_we_do(rival):
    work = WORKLOADS["LeNet-5, batch 128"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        moved = rival(work, torch.device("cpu"))()
        torch.manual_seed(0)
        loss = cases.MLPLoss()
    expected = metaloss.meta_gradient(
        work.build(),
        loss,
        [work.rows(work.batch, 0)],
        work.rows(work.batch, 1),
        inner=SGD(lr=rivals.RATE),
        task_loss=F.cross_entropy,
    )
    for name, value in moved.named_parameters():
        assert value.grad.abs().max() > 0
        torch.testing.assert_close(value.grad, expected[name], rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("rival", [rivals.with_higher, rivals.with_torchopt])
def test_narrow_rivals_round_as_we_do(rival):
    wide = WORKLOADS["LeNet-5, batch 128"]
    gradients = []
    for work in (wide, replace(wide, narrow=True)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            moved = rival(work, torch.device("cpu"))()
        gradients.append(torch.cat([value.grad.flatten() for value in moved.parameters()]))
    exact, rounded = gradients
    assert not torch.equal(exact, rounded)
    assert torch.cosine_similarity(exact, rounded, dim=0) > 0.95


def test_resident_and_loaded_pictures_have_the_same_shape():
    device = torch.device("cpu")
    *_, resident = ours.pictures(device, 20, 8, 2)()
    inputs, labels = rivals.pictures(device, 20, 8, 2, 0)()
    assert inputs.shape == resident.inputs.shape == (8, 3, 32, 32)
    assert labels.shape == resident.targets.shape


def test_the_page_says_what_was_not_measured():
    second = {"median": 2.0, "low": 1.9, "high": 2.1}
    steps = dict.fromkeys(("plain, compiled", "higher", "torchopt", "online"), second)
    found = {"machine": MACHINE, "step/net": steps, "step/other": None, "memory/net/higher": None}
    text = page(found)
    assert "Measured on device one, torch 2." in text
    assert "| online          | 2000.0 |" in text
    assert "1.00 ×" in text
    assert text.count("not measured") >= 6


def test_the_page_says_what_was_measured_apart():
    stamps = {"loss": "abc1234, 2026-01-02", "seeds/eager": "abc1234, 2026-01-02", "long": "later"}
    text = page({"machine": MACHINE, "stamps": stamps, "memory/net/higher": 1000})
    assert "At a commit that was not noted: memory/net/higher." in text
    assert "At abc1234, 2026-01-02: loss; seeds/eager." in text
    assert "At later: long." in text


def test_the_page_shows_unrolls_and_rounding():
    one = {"median": 4.0, "low": 4.0, "high": 4.0, "peak": 2e6}
    found = {
        "machine": MACHINE,
        "memory/net/plain, compiled": {"step": 2e6, "process": 4e6},
        "memory/net/online": {"step": 3e6, "process": 5e6},
        "loss": {
            "per class": {"median": 0.2, "low": 0.1, "high": 0.3},
            "at once": {"median": 0.01, "low": 0.01, "high": 0.01},
            "compiled": {"median": 0.01, "low": 0.01, "high": 0.01},
        },
        "states/net, unroll of 9/all": one,
        "states/net, unroll of 9/sqrt": {**one, "median": 5.0, "peak": 1e6},
        "total/net/plain, compiled": {"tensors": 2e6, "driver": 4e6},
        "total/net/online": {"tensors": 3e6, "driver": 5e6},
        "precision/net": {"at the start": {"bf16, error": 0.0123, "bf16, cosine": 0.99991}},
    }
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page(found).split("\n")]
    assert ["net, unroll of 9", "sqrt", "5.00", "1", "1.25 ×", "0.50 ×"] in lines
    assert ["net", "at the start", "1.2e-02", "0.9999"] in lines
    assert ["net", "online", "3", "5", "1.50 ×", "1.25 ×"] in lines
    assert ["online", "3", "5", "1.50 ×", "1.25 ×"] in lines
    assert "per class: 200.0 ms (100.0 – 300.0)" in {cell for line in lines for cell in line}


def test_rounding_is_measured_before_and_after_training():
    found = cases.precision("digits MLP, batch 64", 2, 2)
    assert list(found) == ["at the start", "after 2 steps"]
    for one in found.values():
        assert 0 < one["single, error"] < 1e-3 < one["bf16, error"] < 0.2
        assert one["bf16, cosine"] > 0.98


def test_a_case_is_a_process_of_its_own(tmp_path):
    case, out = json.dumps(["loss", [4, 3, 1, False]]), tmp_path / "out"
    assert forked.run(["--one", case], module="benchmarks", folder=tmp_path, out=out) == 0
    found = json.loads(out.read_text())
    assert found.keys() == {"per class", "at once"}
    assert found["at once"]["median"] > 0
