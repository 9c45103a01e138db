"""A run's steps in several processes are its steps in one."""

import pytest
import torch

from .processes import run, together
from .steps import CASES


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Return what each of two processes came to."""
    folder = tmp_path_factory.mktemp("steps")
    return together(folder, *(f"steps.{name}" for name in CASES))


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """Return what every case begins with."""
    return run("steps.begin", tmp_path_factory.mktemp("begin"))


@pytest.mark.parametrize("name", CASES)
def test_ten_steps_in_two_processes_are_those_of_one(name, found, before, tmp_path):
    expected = run(f"steps.{name}", tmp_path)
    moved = [
        key for key, value in expected.items() if not torch.equal(value, before.get(key, value))
    ]
    assert any(key.startswith("params") for key in moved)
    assert any(key.startswith("buffers") for key in moved)
    assert any(key.startswith("phi") for key in moved) or name == "static"
    for rank in found:
        for key, value in expected.items():
            torch.testing.assert_close(rank[f"steps.{name}"][key], value, rtol=1e-9, atol=1e-9)


def test_both_processes_hold_the_same_bits(found):
    for name in CASES:
        first, second = (rank[f"steps.{name}"] for rank in found)
        assert all(torch.equal(value, second[key]) for key, value in first.items()), name
