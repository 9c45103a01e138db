"""Trainings that are killed, and trainings in two processes, with Lightning's own launcher."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils import _pytree as pytree

pytestmark = pytest.mark.faults


def train(folder, *words):
    folder.mkdir(exist_ok=True)
    script = Path(__file__).with_name("training.py")
    call = [sys.executable, str(script), str(folder), *words]
    return subprocess.run(call, capture_output=True, text=True, timeout=300)


def end(folder):
    return pytree.tree_leaves(torch.load(folder / "end.pt", weights_only=True))


def test_a_killed_training_goes_on_from_its_checkpoint_bit_by_bit(tmp_path):
    assert train(tmp_path / "whole").returncode == 0
    for step in (5, 10):  # within the second and the third of three epochs
        assert train(tmp_path / "killed", "--kill", str(step)).returncode == -signal.SIGKILL
        assert not (tmp_path / "killed/end.pt").exists()
    last = train(tmp_path / "killed")
    assert last.returncode == 0, last.stderr
    for one, other in zip(end(tmp_path / "killed"), end(tmp_path / "whole"), strict=True):
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def test_two_processes_equal_one(tmp_path):
    double = ("--precision", "64-true")
    both = train(tmp_path / "both", "--devices", "2", *double)
    assert both.returncode == 0, both.stderr
    one = train(tmp_path / "one", *double)
    assert one.returncode == 0, one.stderr
    for a, b in zip(end(tmp_path / "both"), end(tmp_path / "one"), strict=True):
        if isinstance(a, torch.Tensor):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
        else:
            assert a == b
