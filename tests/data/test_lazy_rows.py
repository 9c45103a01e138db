"""Data sets that are read when their rows are needed."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

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
    before = states()
    task = task_from_data(data, Jittered(*rows(20)), seed=1)
    assert isinstance(task.train.inputs, LazyRows)
    assert isinstance(task.valid.inputs, torch.Tensor)
    assert task.train.inputs.shape == (60, 4)
    assert task.train.targets.tolist() == data.targets
    assert "60 to train (read lazily)" in str(task)
    assert states() == before
    assert isinstance(task_from_data(Pairs(*rows())).train.inputs, torch.Tensor)


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


class Counted(Pairs):
    """Rows whose targets are also told."""

    def __init__(self, *pair, told=None):
        super().__init__(*pair)
        self.read, self.labels = 0, self.targets if told is None else told
        self.targets, self.known = self.labels, self.targets

    def __getitem__(self, index):
        self.read += 1
        return self.inputs[index], self.known[index]


def test_targets_that_are_told_are_not_read_one_by_one():
    def reads(data, made=lambda data: data):
        task = task_from_data(made(data), rows(9), options=lazy())
        return data.read, task.train.targets.tolist()

    few, found = reads(Counted(*rows(500)))
    assert few < 150
    assert found == rows(500)[1].tolist()
    many, found = reads(Counted(*rows(500), told=[7] * 500))
    assert many >= 500
    assert found == rows(500)[1].tolist()
    halves = [Subset(Counted(*rows(500)), range(0, 500, step)) for step in (1, 2)]
    task = task_from_data(ConcatDataset(halves), rows(9), options=lazy())
    assert task.train.targets.tolist() == [*rows(500)[1].tolist(), *rows(500)[1][::2].tolist()]


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


class Far(Dataset):
    """A data set of images, of 12 GB."""

    def __len__(self):
        return 20_000

    def __getitem__(self, row):
        return torch.full((3, 224, 224), float(row % 7)), row % 5

    @property
    def targets(self):
        return [row % 5 for row in range(len(self))]


def test_many_images_take_no_memory():
    task = task_from_data(Far(), rows_of_images(), options=lazy(outputs=5))
    assert task.train.inputs.shape == (20_000, 3, 224, 224)
    assert len(next(task.train.inputs.split(10**6))) < 300
    assert task.train.targets[-1] == 4


def rows_of_images():
    return torch.zeros(5, 3, 224, 224), torch.arange(5)
