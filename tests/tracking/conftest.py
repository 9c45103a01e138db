"""Runs as events, and a world without any account at Weights & Biases."""

import os

import pytest

from metaloss.contracts import RunStarted


@pytest.fixture
def no_key(monkeypatch, tmp_path):
    """Hide every key and setting of the person who runs the tests."""
    hide_keys(monkeypatch, tmp_path)
    return tmp_path


def hide_keys(monkeypatch, folder):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name, value in private_places(folder).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(folder)


def private_places(folder):
    """Return the variables that keep everything below one folder."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    return {"HOME": str(home), "USERPROFILE": str(home), "NETRC": str(home / "no-netrc")}


def started(folder, **changes):
    options = {
        "config": {"task": {"name": "digits"}, "steps": 30},
        "folder": folder,
        "name": "digits-online",
        "totals": {"offline": 10, "train": 30},
        "goal": "min",
        "link": "softmax",
    }
    return RunStarted(**{**options, **changes})
