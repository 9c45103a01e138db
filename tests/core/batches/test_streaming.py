"""Streamed rows give the numbers that resident rows give, bit by bit."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import metaloss
from metaloss.core.batches.streaming import StreamedInputs, placed
from metaloss.core.batches.streams import BatchStream

from ..same_ending import assert_same_ending
from ..small_setups import blobs, fast, files_of, net, setup
from ..steps.test_augmentation import jitter

CPU = torch.device("cpu")


def streamed():
    return replace(blobs(), augment=jitter, stream=True)


def resident():
    return replace(blobs(), augment=jitter)


@pytest.mark.parametrize("order", [range(30), [7, 2, 7, 8, 29, 0, 1, 1], range(29, -1, -1)])
def test_batches_are_the_same_in_any_order(order):
    known = {"size": 7, "seed": 3, "purpose": "train"}
    one = BatchStream(blobs().train, **known)
    other = BatchStream(blobs().train, **known, stream_to=CPU)
    assert (one.streamed, other.streamed) == (False, True)
    for number in order:
        for a, b in zip(one[number], other[number], strict=True):
            assert torch.equal(a, b)
        assert torch.equal(one.indices(number), other.indices(number))


def test_the_next_batch_is_gathered_ahead_and_no_other():
    asked = []

    def indices(number):
        asked.append(number)
        return torch.tensor([number])

    batches = StreamedInputs(torch.arange(50.0), indices, CPU)
    assert [batches(number).item() for number in (4, 5, 6, 20, 21)] == [4, 5, 6, 20, 21]
    assert asked == [4, 5, 6, 7, 20, 21, 22]


def test_what_goes_wrong_in_the_thread_is_told():
    batches = StreamedInputs(torch.arange(5.0), lambda number: torch.tensor([number]), CPU)
    assert batches(4).item() == 4
    with pytest.raises(IndexError):
        batches(5)


@pytest.mark.parametrize(
    "words",
    [
        ("schedule=online", "schedule.offline_steps=4", "schedule.unroll=2"),
        ("schedule=online", "schedule.meta_batch=next"),
        ("schedule=static", "loss=cross_entropy", "schedule.train_on=train+validation"),
    ],
    ids=" ".join,
)
def test_a_run_is_the_same_bit_by_bit(tmp_path, words):
    words = fast(*words, "steps=20", "eval_every=5", "log_every=5")
    runs = []
    for name, task in (("resident", resident()), ("streamed", streamed())):
        model = net(nn.BatchNorm1d(5), nn.Dropout(0.3))
        runs.append(metaloss.train([*words, f"output={tmp_path / name}"], task=task, model=model))
    assert files_of(runs[0]) == files_of(runs[1])
    assert_same_ending(tmp_path / "streamed", tmp_path / "resident")


def test_a_group_of_seeds_is_the_same_bit_by_bit(tmp_path):
    words = fast("schedule=online", "steps=10", "eval_every=5", "seeds=2")
    groups = [
        metaloss.train_seeds([*words, f"output={tmp_path / name}"], task=task, model=net())
        for name, task in (("resident", resident()), ("streamed", streamed()))
    ]
    for one, other in zip(*groups, strict=True):
        assert files_of(one) == files_of(other)


def test_rows_stay_where_they_are_only_if_asked_on_a_cpu():
    assert placed(resident(), CPU).stream is False
    assert placed(streamed(), CPU).stream is True
    assert not setup(task=resident()).advance.streams["train"].streamed
    streams = setup("schedule=online", task=streamed()).advance.streams
    assert all(stream.streamed for stream in streams.values())


@pytest.mark.parametrize(("free", "expected"), [(100, True), (10**9, False)])
def test_the_size_decides_where_nothing_is_said(monkeypatch, free, expected):
    task = blobs()
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10**10))
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device: self + 0)
    found = placed(task, torch.device("cuda"))
    assert found.stream is expected
    for part in ("train", "valid", "test"):
        assert (getattr(found, part).inputs is getattr(task, part).inputs) == expected
        assert getattr(found, part).targets is not getattr(task, part).targets


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_streamed_batches_arrive_on_the_device():
    known = {"size": 7, "seed": 3, "purpose": "train"}
    rows = blobs().train
    there = rows._replace(targets=rows.targets.cuda())
    stream = BatchStream(there, **known, stream_to=torch.device("cuda"))
    for number in range(30):
        inputs, targets = stream[number]
        assert inputs.is_cuda
        expected = BatchStream(rows, **known)[number]
        assert torch.equal(inputs.cpu(), expected.inputs)
        assert torch.equal(targets.cpu(), expected.targets)
