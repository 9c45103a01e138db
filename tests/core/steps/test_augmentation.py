"""Augmented batches: of training rows alone, the same after a stop and in a group of seeds."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import metaloss
from metaloss.core.batches.streams import BatchStream
from metaloss.core.parts.setup import prepare
from metaloss.core.runs.stackable import check_stackable
from metaloss.core.steps.stacked import StackedAdvance
from metaloss.data.augment import CropFlipCutout
from metaloss.inner.keys import key_tensor, uniform
from metaloss.inner.stacked import stack
from metaloss.losses.mlp import MLPLoss, MLPLossConfig

from ..plain_autograd_loop import first_state
from ..runs.test_seeds import walk
from ..same_ending import assert_same_ending
from ..small_setups import blobs, config, fast, net, setup

STREAMS = ("train", "offline", "meta/train", "meta/offline")


def jitter(inputs, key):
    return inputs + uniform(key, 0, inputs.shape).to(inputs.dtype)


def jittered(**changes):
    return replace(blobs(**changes), augment=jitter)


def mlp_loss():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MLPLoss(MLPLossConfig(hidden=[6])).double()


def plain(stream, number):
    return stream.rows.inputs[stream.indices(number)]


@pytest.mark.parametrize(
    ("words", "augmented"),
    [
        (("schedule=online",), {"train", "offline"}),
        (("schedule=online", "schedule.meta_batch=train"), set(STREAMS)),
        (("schedule=online", "schedule.train_on=validation"), {"train", "offline"}),
        (("schedule=static", "schedule.train_on=train+validation"), {"train", "offline"}),
    ],
    ids=lambda value: " ".join(sorted(value)),
)
def test_training_rows_are_augmented_and_validation_rows_are_not(words, augmented):
    streams = setup(*words, task=jittered()).advance.streams
    for purpose in STREAMS:
        same = torch.equal(streams[purpose][3].inputs, plain(streams[purpose], 3))
        assert same == (purpose not in augmented), purpose


def test_a_batch_is_augmented_by_a_key_of_its_own():
    stream = BatchStream(blobs().train, size=8, seed=3, purpose="train", augment=jitter)
    key = key_tensor(3, "augment/train", 11, device="cpu")
    assert torch.equal(stream[11].inputs, jitter(plain(stream, 11), key))
    assert torch.equal(stream[11].inputs, stream[11].inputs)
    added = [stream[number].inputs - plain(stream, number) for number in (0, 8)]
    assert (added[0] - added[1]).abs().max() > 0.1
    assert torch.equal(stream[11].targets, stream.rows.targets[stream.indices(11)])


def test_evaluated_rows_are_not_augmented(tmp_path):
    words = fast("schedule=static", "loss=cross_entropy", "steps=2", "inner.lr=1e-30")
    runs = [
        metaloss.train([*words, f"output={tmp_path / name}"], task=task, model=net())
        for name, task in (("plain", blobs()), ("augmented", jittered()))
    ]
    assert runs[0].summary.metrics == runs[1].summary.metrics
    first, second = (run.journal()[-1]["train/loss"] for run in runs)
    assert first != second


def test_a_stopped_run_ends_like_one_that_was_not(tmp_path):
    words = fast("schedule=online", "log_every=2", "eval_every=4", "checkpoint_every=3")
    task, model = jittered(), net(nn.Dropout(0.3))
    metaloss.train([*words, "steps=12", f"output={tmp_path / 'whole'}"], task=task, model=model)
    metaloss.train([*words, "steps=8", f"output={tmp_path / 'run'}"], task=task, model=model)
    metaloss.resume_run(tmp_path / "run", steps=12, task=task, model=model)
    assert_same_ending(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("shared", [True, False])
def test_a_group_of_seeds_draws_what_each_would_alone(shared):
    tasks = [jittered(seed=0, dtype=torch.float64)] * 3
    if not shared:
        tasks = [jittered(seed=seed, dtype=torch.float64) for seed in range(3)]
    words, setups = config("schedule=online"), []
    for seed, task in enumerate(tasks):
        model = net(seed=seed).double()
        setups.append(prepare(replace(words, seed=seed), task=task, model=model, loss=mlp_loss()))
    check_stackable(setups)
    together = StackedAdvance([one.advance for one in setups])
    for number in (0, 5):
        batch = together._streams["train"][number]
        for index, one in enumerate(setups):
            alone = one.advance.streams["train"][number]
            assert torch.equal(batch.inputs[index], alone.inputs)
            assert torch.equal(batch.targets[index], alone.targets)
    states = walk(setups[0], together, stack([first_state(one) for one in setups]))
    for index, one in enumerate(setups):
        alone = walk(one, one.advance, first_state(one))
        for name, value in alone.inner.params.items():
            torch.testing.assert_close(
                states.inner.params[name][index], value, rtol=1e-9, atol=1e-12
            )


def test_a_group_of_pictures_is_augmented_member_by_member():
    draw = torch.Generator().manual_seed(0)
    pictures = torch.randn(40, 2, 6, 6, generator=draw)
    augment = CropFlipCutout(padding=2, flip=True)
    keys = torch.tensor([5, 9])
    together = torch.func.vmap(augment)(pictures.view(2, 20, 2, 6, 6), keys)
    for index in range(2):
        alone = augment(pictures[20 * index : 20 * (index + 1)], keys[index])
        assert torch.equal(together[index], alone)
