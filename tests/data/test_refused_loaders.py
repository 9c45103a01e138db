"""Data sets, loaders and samplers that repeat rows, withhold them or never end are refused."""

import itertools

import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    TensorDataset,
    get_worker_info,
)

from metaloss.data import materialize, task_from_data

from .three_classes import X, Y, error_of

PAIRS = TensorDataset(X, Y)


# ------------------------------------------------------------------------------------------- rows


class Stream(IterableDataset):
    """Every row in each worker; shared out among workers; or with a length that lies."""

    def __init__(self, *, shared=False):
        self.shared = shared

    def __iter__(self):
        worker = get_worker_info() if self.shared else None
        rows = range(60) if worker is None else range(worker.id, 60, worker.num_workers)
        return ((X[row], int(Y[row])) for row in rows)


class Sized(Stream):
    def __len__(self):
        return 100


class Endless(Stream):
    def __iter__(self):
        return ((X[row % 60], int(Y[row % 60])) for row in itertools.count())


class Once(Stream):
    def __init__(self):
        self.rows = iter(list(zip(X, Y.tolist(), strict=True)))

    def __iter__(self):
        return self.rows


class Long(Dataset):
    def __len__(self):
        return 80

    def __getitem__(self, row):
        return X[row], Y[row]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("batch_size", [7, 60])
def test_no_row_comes_twice_out_of_a_loader_with_workers(shared, batch_size):
    loader = DataLoader(Stream(shared=shared), batch_size=batch_size, num_workers=2, drop_last=True)
    task = task_from_data(loader)
    rows = torch.cat([task.train.inputs, task.valid.inputs])
    assert len(rows) == 60
    assert {tuple(row.tolist()) for row in rows} == {tuple(row.tolist()) for row in X}


def test_rows_without_an_end_are_refused(monkeypatch):
    monkeypatch.setattr(materialize, "_MOST_ROWS", 1000)
    message = "train: the iterable gives more than 1,000 rows; expected one "
    message += "that ends (or the rows as a pair of tensors)"
    assert error_of(Endless()) == message
    assert error_of(DataLoader(Endless(), num_workers=2)) == message


def test_lengths_that_lie_and_used_up_iterators_are_refused():
    message = "train: the iterable gives 60 rows, but its length is 100; expected equal"
    assert error_of(Sized()).startswith(message)
    message = "train: the dataset fails at row 60: IndexError: index 60 is out of bounds for"
    assert error_of(Long()).startswith(message)
    rows = Once()
    assert error_of(rows, rows) == "valid is empty: expected at least one row"


SAMPLERS = {
    "distributed": (
        lambda: DataLoader(PAIRS, sampler=DistributedSampler(PAIRS, 2, 0)),
        "train: got a loader with a DistributedSampler, which gives each process other "
        "rows; expected its dataset",
    ),
    "replacement": (
        lambda: DataLoader(PAIRS, sampler=RandomSampler(X, replacement=True)),
        "train: got a loader that draws rows more than once; expected its dataset",
    ),
    "endless": (
        lambda: DataLoader(PAIRS, sampler=itertools.cycle(range(60))),
        "train: got a loader that draws rows more than once; expected its dataset",
    ),
    "batches": (
        lambda: DataLoader(
            PAIRS,
            batch_size=None,
            sampler=BatchSampler(RandomSampler(X, replacement=True), 7, False),
        ),
        "train: got a loader that draws rows more than once; expected its dataset",
    ),
}


@pytest.mark.parametrize("case", SAMPLERS)
def test_samplers_that_repeat_or_withhold_rows_are_refused(case):
    make, message = SAMPLERS[case]
    assert error_of(make()) == message


def test_a_sampler_may_pick_whole_batches():
    sampler = BatchSampler(RandomSampler(X), 7, drop_last=False)
    task = task_from_data(DataLoader(PAIRS, batch_size=None, sampler=sampler))
    assert len(task.train.inputs) + len(task.valid.inputs) == 60
