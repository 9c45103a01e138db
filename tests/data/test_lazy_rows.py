"""Data sets that are read when their rows are needed."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset
from torchvision.datasets import CIFAR10, DatasetFolder

from metaloss.data import TaskOptions, task_from_data
from metaloss.data.lazy import LazyRows
from metaloss.errors import MetalossError

from .small_rows import Pairs, Stream, rows


class Jittered(Pairs):
    """A data set whose transform draws from every generator that there is."""

    def __init__(self, *pair):
        super().__init__(*pair)
        self.own = np.random.default_rng(0)

    def __getitem__(self, index):
        noise = torch.randn(4) + random.random() + np.random.rand() + self.own.random()  # noqa: NPY002
        return self.inputs[index] + noise, self.targets[index]


def lazy(**options):
    return TaskOptions(lazy=True, **options)


def states():
    numpy = np.random.get_state()[1].tolist()  # noqa: NPY002
    return torch.random.get_rng_state().tolist(), random.getstate(), numpy


def test_random_transforms_make_training_rows_lazy_and_no_others():
    data = Jittered(*rows())
    # First, because some libraries draw when they are imported.
    assert isinstance(task_from_data(Pairs(*rows())).train.inputs, torch.Tensor)
    before = states()
    task = task_from_data(data, Jittered(*rows(20)), seed=1)
    assert isinstance(task.train.inputs, LazyRows)
    assert isinstance(task.valid.inputs, torch.Tensor)
    assert task.train.inputs.shape == (60, 4)
    assert task.train.targets.tolist() == data.targets
    assert "60 to train (read lazily)" in str(task)
    assert states() == before


class Rare(Pairs):
    """A data set whose transform changes one row in a million."""

    def __getitem__(self, index):
        inputs, target = super().__getitem__(index)
        return (-inputs if torch.rand(()) < 1e-6 else inputs), target


def test_a_transform_that_draws_is_random_even_if_it_changes_nothing():
    assert isinstance(task_from_data(Rare(*rows())).train.inputs, LazyRows)


def test_rows_by_number_have_fixed_draws():
    data = task_from_data(Jittered(*rows()), rows(9), options=lazy()).train.inputs
    whole = torch.cat([*data.split(7)])
    assert torch.equal(whole[5:9], data[5:9])
    assert torch.equal(whole[3], data[3])
    assert torch.equal(whole[[8, 2]], data[torch.tensor([8, 2])])
    assert not torch.equal(whole, rows()[0])


def test_workers_draw_the_same():
    before = states()
    found = {}
    for workers in (0, 2):
        data = LazyRows(Jittered(*rows()), part="train", workers=workers)
        asked = [data.asked(torch.arange(one, one + 5), key) for one, key in ((0, 1), (3, 2))]
        found[workers] = [batch.inputs for batch in data.read(asked)]
    assert all(torch.equal(one, other) for one, other in zip(*found.values(), strict=True))
    assert not torch.equal(found[0][0][3:], found[0][1][:2])  # rows 3 and 4, drawn anew
    assert states() == before


def test_a_share_of_lazy_rows_becomes_validation_rows():
    plain = task_from_data(Pairs(*rows()))
    for options in (lazy(), lazy(workers=0)):
        task = task_from_data(Pairs(*rows()), options=options)
        for part in ("train", "valid"):
            one, other = getattr(task, part), getattr(plain, part)
            assert isinstance(one.inputs, LazyRows)
            assert torch.equal(one.inputs[:], other.inputs)
            assert torch.equal(one.targets, other.targets)
    task = task_from_data(Jittered(*rows()))  # the validation rows fit into memory
    assert isinstance(task.train.inputs, LazyRows)
    assert isinstance(task.valid.inputs, torch.Tensor)


class Counted(CIFAR10):
    """torchvision's data set, without a file, and how many rows were read of it."""

    def __init__(self, count, target_transform=None):
        self.data = np.zeros((count, 32, 32, 3), np.uint8)
        self.targets, self.read = [row % 3 for row in range(count)], 0
        self.transform, self.target_transform = self.counted, target_transform

    def counted(self, picture):
        self.read += 1
        return torch.full((2,), 0.5)


class Relabelled(Counted):
    """One of its many rows has another target than the attribute."""

    def __getitem__(self, index):
        picture, target = super().__getitem__(index)
        return picture, 2 if index == 300 else target


def test_targets_are_not_read_one_by_one_where_the_data_set_surely_tells_them():
    def reads(data, made=lambda data: data):
        task = task_from_data(made(data), Counted(9), options=lazy())
        return data.read, task.train.targets.tolist()

    right = [row % 3 for row in range(500)]
    few, found = reads(Counted(500))
    assert few < 150
    assert found == right
    many, found = reads(Relabelled(500))
    assert many >= 500
    assert found == [2 if row == 300 else target for row, target in enumerate(right)]
    assert reads(Counted(500, lambda target: 2 - target))[1] == [2 - one for one in right]
    halves = [Subset(Counted(500), range(0, 500, step)) for step in (1, 2)]
    task = task_from_data(ConcatDataset(halves), Counted(9), options=lazy())
    assert task.train.targets.tolist() == [*right, *right[::2]]
    assert halves[0].dataset.read < 150


def test_a_loader_s_rows_and_workers_are_taken():
    loader = DataLoader(Jittered(*rows()), batch_size=4, sampler=range(10, 40), num_workers=2)
    data = task_from_data(loader, rows(9)).train
    assert data.inputs.workers == 2
    assert data.targets.tolist() == rows()[1][10:40].tolist()


class Broken(Pairs):
    def __getitem__(self, index):
        if index == 30:
            raise OSError("no such\nfile")
        return super().__getitem__(index)


class Unrepeatable(Pairs):
    def __getitem__(self, index):
        self.calls = getattr(self, "calls", 0) + 1
        return self.inputs[index] + self.calls, self.targets[index]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_row_that_cannot_be_read_is_named_in_one_line(workers):
    data = LazyRows(Broken(*rows()), part="train", workers=workers)
    with pytest.raises(MetalossError) as error:
        list(data.split(10))
    assert str(error.value) == "train: the dataset fails at row 30: OSError: no such"


def test_what_cannot_be_lazy_is_refused():
    with pytest.raises(MetalossError, match="train: got Stream; expected a Dataset with a length"):
        task_from_data(Stream(list(zip(*rows(), strict=True))), rows(9), options=lazy())
    with pytest.raises(MetalossError, match="train: got TensorDataset; expected a Dataset with"):
        task_from_data(TensorDataset(*rows()), rows(9), options=lazy())
    with pytest.raises(MetalossError, match="train: a row of the data set differs when"):
        task_from_data(Unrepeatable(*rows()), rows(9), options=lazy())
    assert isinstance(task_from_data(Unrepeatable(*rows())).train.inputs, torch.Tensor)
    with pytest.raises(MetalossError, match="workers=-1"):
        lazy(workers=-1)


def test_rows_that_do_not_fit_are_lazy(monkeypatch):
    monkeypatch.setattr("metaloss.data.datasets._free_memory", lambda: 100)
    assert isinstance(task_from_data(Pairs(*rows()), rows(9)).train.inputs, LazyRows)
    assert isinstance(task_from_data(rows(), rows(9)).train.inputs, torch.Tensor)


class Far(DatasetFolder):
    """A folder of images, of 12 GB, without the folder."""

    def __init__(self):
        self.samples = [(str(row), row % 5) for row in range(20_000)]
        self.transform = self.target_transform = None

    def loader(self, path):
        return torch.full((3, 224, 224), float(int(path) % 7))


def test_many_images_take_no_memory():
    task = task_from_data(Far(), rows_of_images(), options=lazy(outputs=5))
    assert task.train.inputs.shape == (20_000, 3, 224, 224)
    assert len(next(task.train.inputs.split(10**6))) < 300
    assert task.train.targets[-1] == 4


def rows_of_images():
    return torch.zeros(5, 3, 224, 224), torch.arange(5)
