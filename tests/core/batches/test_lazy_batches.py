"""Rows that are read lazily train a run as copied rows do; transforms draw anew and repeatably."""

from dataclasses import replace

import pytest
import torch
from torch.utils.data import Dataset

import metaloss
from metaloss import TaskOptions, task_from_data
from metaloss.core.batches.streams import BatchStream

from ..interrupted_runs import interrupting, resume, train
from ..same_ending import assert_same_ending
from ..small_setups import blobs, fast, files_of, net


class Noisy(Dataset):
    """The training rows of blobs; with a random transform, if asked."""

    def __init__(self, noise=0.0):
        self.rows, self.noise = blobs().train, noise

    def __len__(self):
        return len(self.rows.targets)

    def __getitem__(self, index):
        noise = self.noise * torch.randn(4) if self.noise else 0.0
        return self.rows.inputs[index] + noise, self.rows.targets[index]


def lazy(noise=0.3, workers=0, whole=None):
    whole = whole or blobs()
    options = TaskOptions(lazy=True, workers=workers)
    made = task_from_data(Noisy(noise), whole.valid, whole.test, name="blobs", options=options)
    return replace(whole, train=made.train)


def test_every_batch_draws_anew_and_can_be_asked_for_again():
    known = {"size": 32, "seed": 3, "purpose": "train"}
    batches = {number: BatchStream(lazy().train, **known)[number] for number in range(4)}
    stream = BatchStream(lazy().train, **known)
    for number in (0, 0, 1, 3, 2):
        for one, other in zip(stream[number], batches[number], strict=True):
            assert torch.equal(one, other)
    # Two batches are an epoch: the noise of the second epoch is new.
    noise = []
    for epoch in (0, 1):
        drawn = torch.empty(64, 4)
        for number in (2 * epoch, 2 * epoch + 1):
            rows = stream.indices(number)
            drawn[rows] = batches[number].inputs - blobs().train.inputs[rows]
        noise.append(drawn)
    assert 0.2 < noise[0].std() < 0.4
    assert torch.corrcoef(torch.stack([one.flatten() for one in noise]))[0, 1].abs() < 0.3
    other = BatchStream(lazy().train, **{**known, "purpose": "offline"})
    assert not torch.equal(other[0].inputs, batches[0].inputs)


@pytest.mark.parametrize(
    "words",
    [
        ("schedule=online", "schedule.meta_batch=next"),
        ("schedule=static", "loss=cross_entropy", "schedule.train_on=train+validation"),
    ],
    ids=" ".join,
)
def test_without_a_transform_a_run_is_that_of_copied_rows(tmp_path, words):
    words = fast(*words, "steps=20", "eval_every=5", "log_every=5")
    for name, task in (("copied", blobs()), ("lazy", lazy(0))):
        metaloss.train([*words, f"output={tmp_path / name}"], task=task, model=net())
    assert_same_ending(tmp_path / "lazy", tmp_path / "copied")


def test_a_resumed_run_draws_the_same_with_any_number_of_workers(tmp_path):
    train(tmp_path / "whole", "schedule.offline_steps=4", task=lazy())
    stopped = interrupting(8)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", "schedule.offline_steps=4", task=lazy(whole=stopped))
    assert not (tmp_path / "run" / "summary.json").exists()
    resume(tmp_path / "run", task=lazy(workers=2))
    assert_same_ending(tmp_path / "run", tmp_path / "whole")


def test_seeds_together_read_their_own_rows(tmp_path):
    words = fast("schedule=online", "steps=4", "eval_every=4")
    one = metaloss.train(
        [*words, "seeds=2", f"output={tmp_path / 'two'}"], task=lazy(), model=net()
    )
    alone = metaloss.train(
        [*words, "seed=1", f"output={tmp_path / 'one'}"], task=lazy(), model=net()
    )
    assert files_of(one[1])[0] != files_of(one[0])[0]
    found, expected = (run.model.state_dict() for run in (one[1], alone))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)
