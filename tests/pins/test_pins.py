"""Twelve configurations give the numbers that they gave: journal, φ, checkpoints, metrics, CSV.

What is stored was computed on one machine; another may round otherwise. With METALOSS_PINS=exact
the numbers must be the same to the last bit, as they are on one machine from one state of the code
to the next; with METALOSS_PINS=write they are stored anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from metaloss.cli.main import app

from .configurations import RUNS, rows, trained, trained_seeds

STORED = Path(__file__).parent / "stored"
MODE = os.environ.get("METALOSS_PINS", "close")
# What is measured in seconds, or follows from it.
_TIMES = {"seconds", "train_seconds"}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sum in one order, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def check(name: str, found: object) -> None:
    path = STORED / f"{name}.json"
    if MODE == "write":
        STORED.mkdir(exist_ok=True)
        path.write_text(json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    stored = json.loads(path.read_text())
    assert_same(json.loads(json.dumps(found)), stored, name)


def assert_same(found: object, stored: object, place: str) -> None:
    if isinstance(stored, dict):
        assert isinstance(found, dict)
        assert found.keys() == stored.keys(), place
        for key, value in stored.items():
            assert_same(found[key], value, f"{place}/{key}")
    elif isinstance(stored, list):
        assert isinstance(found, list)
        assert len(found) == len(stored), place
        for number, value in enumerate(stored):
            assert_same(found[number], value, f"{place}/{number}")
    elif isinstance(stored, float) and MODE == "close":
        assert found == pytest.approx(stored, rel=1e-3, abs=1e-5, nan_ok=True), place
    else:
        assert found == stored, place


@pytest.mark.parametrize("name", RUNS)
def test_a_run_gives_the_numbers_that_it_gave(name, tmp_path):
    check(name, trained(RUNS[name], tmp_path / name))


def test_seeds_give_the_numbers_that_they_gave(tmp_path):
    check("seeds", trained_seeds(tmp_path / "seeds"))


def test_a_comparison_gives_the_tables_that_it_gave(tmp_path):
    words = ["task=digits", "task.subset=200", "model=linear", "steps=8", "start.steps=20"]
    words += ["compile=off", "guard=off", "eval_every=4"]
    made = [
        "--row",
        "plain: schedule=static loss=cross_entropy",
        "--row",
        "online: schedule=online",
    ]
    folder = str(tmp_path / "study")
    call = CliRunner().invoke(app, ["compare", folder, "--seeds", "0,1", *made, *words])
    assert call.exit_code == 0, call.output
    tables = {path.name: rows(path, _TIMES) for path in sorted(Path(folder).glob("*.csv"))}
    assert tables
    check("comparison", _numbers(tables))


def _numbers(tree: object) -> object:
    """Return the tree with numbers for words that are numbers."""
    if isinstance(tree, dict):
        return {key: _numbers(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_numbers(value) for value in tree]
    try:
        return float(str(tree))
    except ValueError:
        return tree
