import math
import random

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import (
    DataLoader,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
)

from metaloss.data import TaskOptions, task_from_data
from metaloss.types import Link

from .small_rows import Pairs, Stream, accuracy, rows


def real(count=60, columns=None, seed=0):
    shape = (count,) if columns is None else (count, columns)
    generator = torch.Generator().manual_seed(seed + 100)
    return rows(count, seed=seed)[0], torch.randn(shape, generator=generator)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


class Jittered(Pairs):
    """A data set with a random transform."""

    def __getitem__(self, index):
        return self.inputs[index] + torch.randn(4), self.targets[index]


# ------------------------------------------------------------------------------- what is inferred


def test_integer_targets_make_a_classification_task():
    train, valid, test = rows(), rows(20, seed=1), rows(10, seed=2)
    task = task_from_data(train, valid, test, name="mine")
    assert same(task.train, train)
    assert same(task.valid, valid)
    assert same(task.test, test)
    assert (task.name, task.link, task.outputs) == ("mine", Link.softmax, 3)
    assert (task.metric_name, task.goal) == ("error", "min")
    assert task.task_loss is F.cross_entropy
    assert task.constant_loss == pytest.approx(math.log(3))
    assert task.metric(torch.eye(3)[test[1]], test[1]) == 0


def test_real_targets_make_a_regression_task():
    task = task_from_data(real(), real(20, seed=1))
    assert (task.link, task.outputs, task.metric_name) == (Link.identity, 1, "mse")
    assert task.train.targets.shape == (60, 1)
    assert task.constant_loss == pytest.approx(real()[1].var(correction=0).item(), rel=1e-5)
    assert task.metric(torch.zeros(20, 1), task.valid.targets).item() == pytest.approx(
        real(20, seed=1)[1].square().mean().item()
    )


def test_real_targets_may_have_several_columns():
    assert task_from_data(real(columns=5)).outputs == 5


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.bool])
def test_integers_of_any_type_are_classes(dtype):
    inputs, labels = rows(classes=2)
    task = task_from_data((inputs, labels.to(dtype)))
    assert task.train.targets.dtype == torch.int64
    assert task.outputs == 2


def test_numbers_get_torchs_default_type():
    inputs, targets = real(columns=2)
    task = task_from_data((inputs.double().numpy(), targets.half().numpy()))
    assert task.train.inputs.dtype == task.train.targets.dtype == torch.float32
    tokens = task_from_data((torch.ones(60, 7, dtype=torch.int32), rows()[1]))
    assert tokens.train.inputs.dtype == torch.int64


def test_places_and_ignored_targets():
    targets = torch.arange(60 * 4).reshape(60, 4) % 3
    targets[:, 0] = -100
    task = task_from_data((torch.randn(60, 2, generator=torch.Generator()), targets))
    assert task.outputs == 3
    assert (task.train.targets == -100).any()
    assert 0 < task.constant_loss < math.log(3) + 1e-9


def test_soft_labels():
    soft = torch.softmax(real(columns=4)[1], dim=1)
    task = task_from_data((rows()[0], soft), options=TaskOptions(link="softmax"))
    assert (task.outputs, task.link) == (4, Link.softmax)
    logits = task.train.targets.mean(dim=0).log().expand(len(task.train.targets), 4)
    assert task.constant_loss == pytest.approx(
        task.task_loss(logits, task.train.targets).item(), rel=1e-5
    )


# ------------------------------------------------------------------------------------- overrides


def test_sigmoid_by_option():
    inputs, labels = rows(classes=2)
    task = task_from_data((inputs, labels), options=TaskOptions(link=Link.sigmoid))
    assert (task.link, task.outputs, task.metric_name) == (Link.sigmoid, 1, "error")
    assert task.train.targets.shape == (51, 1)
    assert task.task_loss is F.binary_cross_entropy_with_logits
    share = task.train.targets.mean().item()
    entropy = -share * math.log(share) - (1 - share) * math.log(1 - share)
    assert task.constant_loss == pytest.approx(entropy, rel=1e-6)
    assert task.metric(task.valid.targets - 0.5, task.valid.targets) == 0


def test_identity_by_option_turns_integers_into_values():
    task = task_from_data(rows(), options=TaskOptions(link=Link.identity))
    assert task.train.targets.dtype == torch.float32
    assert task.metric_name == "mse"


def test_metric_and_task_loss_by_option():
    def smoothed(outputs, targets):
        return F.cross_entropy(outputs, targets, label_smoothing=0.1)

    options = TaskOptions(
        outputs=5,
        task_loss=smoothed,
        metric=accuracy,
        metric_name="accuracy",
        goal="max",
        description="words",
    )
    task = task_from_data(rows(), options=options)
    assert (task.outputs, task.goal, task.metric_name) == (5, "max", "accuracy")
    assert task.task_loss is smoothed
    assert task.metric is accuracy
    assert task.description == "words"
    # Smoothed targets in the mean: the entropy of that distribution.
    shares = torch.bincount(task.train.targets, minlength=5).double() / len(task.train.targets)
    shares = 0.9 * shares + 0.1 / 5
    assert task.constant_loss == pytest.approx(-(shares * shares.log()).sum().item(), rel=1e-6)


def test_a_task_loss_of_ones_own_may_want_other_outputs():
    def gaussian(outputs, targets):
        return F.gaussian_nll_loss(outputs[:, :1], targets, outputs[:, 1:].exp())

    options = TaskOptions(outputs=2, task_loss=gaussian, constant_loss=1.25)
    task = task_from_data(real(), options=options)
    assert task.outputs == 2
    assert task.constant_loss == 1.25


# ------------------------------------------------------------------------------------ missing parts


def test_validation_rows_are_split_off_stratified_and_by_seed():
    inputs, labels = rows(100, classes=4)
    task = task_from_data((inputs, labels), options=TaskOptions(valid_fraction=0.2))
    assert len(task.train.inputs) == 80
    assert torch.bincount(task.valid.targets).tolist() == [5, 5, 5, 5]
    together = {tuple(row.tolist()) for row in (*task.train.inputs, *task.valid.inputs)}
    assert together == {tuple(row.tolist()) for row in inputs}
    lookup = {tuple(row.tolist()): int(label) for row, label in zip(inputs, labels, strict=True)}
    for batch in (task.train, task.valid):
        assert [lookup[tuple(row.tolist())] for row in batch.inputs] == batch.targets.tolist()
    again = task_from_data((inputs, labels), options=TaskOptions(valid_fraction=0.2))
    other = task_from_data((inputs, labels), seed=1, options=TaskOptions(valid_fraction=0.2))
    assert same(task.valid, again.valid)
    assert not torch.equal(task.valid.inputs, other.valid.inputs)


def test_without_test_rows_validation_serves_as_test():
    task = task_from_data(rows(), rows(20, seed=1))
    assert same(task.test, task.valid)


# ------------------------------------------------------------------------------------- containers

CONTAINERS = {
    "list": list,
    "tensor_dataset": lambda pair: TensorDataset(*pair),
    "dataset": lambda pair: Pairs(*pair),
    "subset": lambda pair: Subset(Pairs(*pair), range(60)),
    "stream": lambda pair: Stream(list(zip(*pair, strict=True))),
    "loader": lambda pair: DataLoader(Pairs(*pair), batch_size=7),
    "shuffled": lambda pair: DataLoader(Pairs(*pair), batch_size=7, shuffle=True, drop_last=True),
    "stream_loader": lambda pair: DataLoader(Stream(list(zip(*pair, strict=True))), batch_size=7),
    "batch_sampler": lambda pair: DataLoader(
        Pairs(*pair), batch_sampler=[[4, 2], [0, 1, 3], *[[i] for i in range(5, 60)]]
    ),
    "batches": lambda pair: DataLoader(
        [(pair[0][i : i + 20], pair[1][i : i + 20]) for i in (0, 20, 40)], batch_size=None
    ),
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("make", [rows, real])
def test_every_container_gives_the_same_rows_in_the_same_order(container, make):
    reference = task_from_data(make(), rows(9) if make is rows else real(9))
    task = task_from_data(CONTAINERS[container](make()), rows(9) if make is rows else real(9))
    assert same(task.train, reference.train)


def test_a_sampler_says_which_rows():
    inputs, labels = rows()
    loaders = [
        DataLoader(Pairs(inputs, labels), batch_size=8, sampler=SubsetRandomSampler(chosen))
        for chosen in (range(40, 60), torch.arange(20))
    ]
    task = task_from_data(loaders[1], loaders[0])
    assert same(task.train, (inputs[:20], labels[:20]))
    assert same(task.valid, (inputs[40:], labels[40:]))


def test_a_collate_function_is_used():
    loader = DataLoader(
        Pairs(*rows()),
        collate_fn=lambda batch: (
            torch.stack([x for x, _ in batch]) * 2,
            torch.tensor([y for _, y in batch]),
        ),
    )
    assert torch.equal(task_from_data(loader, rows()).train.inputs, rows()[0] * 2)


def test_random_transforms_of_a_copy_are_drawn_once_and_global_states_are_kept():
    copied = TaskOptions(lazy=False)
    loader = DataLoader(Jittered(*rows()), batch_size=8, shuffle=True)
    torch_state = torch.random.get_rng_state()
    random_state = random.getstate()
    numpy_state = np.random.get_state()[1].tolist()  # noqa: NPY002
    one, again, other = (
        task_from_data(loader, rows(), seed=seed, options=copied) for seed in (0, 0, 1)
    )
    assert same(one.train, again.train)
    assert not torch.equal(one.train.inputs, other.train.inputs)
    assert torch.equal(torch.random.get_rng_state(), torch_state)
    assert random.getstate() == random_state
    assert np.random.get_state()[1].tolist() == numpy_state  # noqa: NPY002


def test_the_users_tensors_are_left_alone():
    inputs = rows()[0].requires_grad_()
    task = task_from_data((inputs, rows()[1]))
    assert inputs.requires_grad
    assert not task.train.inputs.requires_grad
