"""MNIST-1D comes from its own package, without downloads, pickles or changes of global states."""

import random

import numpy as np
import pytest

from metaloss.data.sequences.mnist1d import MNIST1D, _generate


def test_global_random_states_come_back_after_a_failure(monkeypatch):
    import mnist1d.data

    def fails(arguments):
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        raise RuntimeError("generator")

    _generate.cache_clear()
    monkeypatch.setattr(mnist1d.data, "make_dataset", fails)
    states = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    with pytest.raises(RuntimeError, match="generator"):
        MNIST1D(samples=100).build(0)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states  # noqa: NPY002


def test_mnist1d_never_downloads_and_never_unpickles(monkeypatch):
    import mnist1d.data

    def forbidden(*args, **kwargs):
        raise AssertionError("called")

    _generate.cache_clear()
    for name in ("get_dataset", "from_pickle"):
        monkeypatch.setattr(mnist1d.data, name, forbidden)
    monkeypatch.setattr(mnist1d.data.requests, "get", forbidden)
    assert len(MNIST1D(samples=200).build(0).train.inputs) == 120


def test_mnist1d_rows_are_the_packages_up_to_scale():
    from mnist1d.data import get_dataset_args, make_dataset

    arguments = get_dataset_args()
    arguments.num_samples = 600
    state = random.getstate(), np.random.get_state()  # noqa: NPY002
    made = make_dataset(arguments)
    random.setstate(state[0])
    np.random.set_state(state[1])  # noqa: NPY002
    source = MNIST1D(samples=600)
    rows, task = source.rows(0), source.build(0)
    raw = np.concatenate([made["x"], made["x_test"]])
    assert (
        np.concatenate([made["y"], made["y_test"]])[rows.test] == task.test.targets.numpy()
    ).all()
    correlation = np.corrcoef(raw[rows.test].flatten(), task.test.inputs.flatten().numpy())[0, 1]
    assert correlation == pytest.approx(1, abs=1e-6)
    assert source.load()[0] is source.load()[0]
    with pytest.raises(ValueError, match="read-only"):
        source.load()[0][0, 0] = 1.0
