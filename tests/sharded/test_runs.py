"""Runs in several processes: what they leave, how they end, and how they go on."""

import json

import pytest
import torch
from safetensors.torch import load_file

from metaloss.core.storage.run_folder import read_rows

from .processes import fork, run, together
from .runs import REFUSED


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Return the folder of a run in one process that nothing stopped."""
    folder = tmp_path_factory.mktemp("alone")
    run("runs.whole", folder)
    return folder / "run"


def assert_same_run(folder, other):
    """Assert that two runs have the same numbers, but for rounding, on disk."""
    for name in ("model.safetensors", "loss.safetensors"):
        found, expected = load_file(folder / name), load_file(other / name)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-9, atol=1e-9)
    for name in ("journal.jsonl", "curves.jsonl"):
        found, expected = read_rows(folder / name), read_rows(other / name)
        assert len(found) == len(expected) > 3
        for row, like in zip(found, expected, strict=True):
            assert row.keys() == like.keys()
            for key, value in like.items():
                if key in ("curves", "grid", "time/seconds"):
                    continue
                assert row[key] == (value if isinstance(value, str) else pytest.approx(value, 1e-6))
    found, expected = (json.loads((one / "summary.json").read_text()) for one in (folder, other))
    assert found["metrics"] == pytest.approx(expected["metrics"], abs=1e-6)
    assert found["steps"] == expected["steps"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Return the folder of all cases that two processes did, and what each returned."""
    folder = tmp_path_factory.mktemp("shared")
    run("runs.interrupted", folder / "runs.resumed")
    refused = (f"runs.{name}" for name in REFUSED)
    runs = (
        "runs.whole",
        "runs.short",
        "runs.traced",
        "runs.resumed",
        "runs.interrupted",
        "runs.users",
    )
    cases = (*runs, *refused, "runs.waits")
    return folder, together(folder, *cases)


def test_two_processes_leave_the_run_of_one(alone, shared):
    folder, (first, second) = shared
    assert first["runs.whole"] == second["runs.whole"]
    found = folder / "runs.whole" / "run"
    assert_same_run(found, alone)
    assert {path.name for path in found.iterdir()} == {path.name for path in alone.iterdir()}
    assert json.loads((found / "summary.json").read_text())["processes"] == 2


def test_traced_steps_of_two_processes_are_the_eager_ones(shared):
    folder, (first, second) = shared
    assert first["runs.traced"] == second["runs.traced"] == first["runs.short"]
    weights = (
        load_file(folder / run / "run" / "model.safetensors")
        for run in ("runs.short", "runs.traced")
    )
    torch.testing.assert_close(*weights, rtol=1e-12, atol=1e-12)
    config = (folder / "runs.traced" / "run" / "config.yaml").read_text()
    assert "compile: trace" in config


def test_a_run_in_one_process_goes_on_in_two(alone, shared):
    folder, found = shared
    assert [rank["runs.resumed"] for rank in found] == ["ok", "ok"]
    assert_same_run(folder / "runs.resumed" / "run", alone)


def test_ctrl_c_in_one_process_stops_both_and_the_run_goes_on_in_one(alone, shared):
    folder, (first, second) = shared
    assert first["runs.interrupted"] == second["runs.interrupted"]
    assert not (folder / "runs.interrupted" / "run" / "summary.json").exists()
    run("runs.resumed", folder / "runs.interrupted")
    assert_same_run(folder / "runs.interrupted" / "run", alone)


def test_an_error_in_one_process_ends_both(tmp_path):
    (first, told), (second, said) = fork(tmp_path, "runs.fails")
    assert first != 0
    assert second != 0
    assert "OSError: boom" in said
    assert "rank 1 ended: " in told
    assert "OSError: boom" in told


def test_an_error_in_one_process_of_the_users_own_group_reaches_all_and_the_group_lives(shared):
    folder, (first, second) = shared
    refused = f"output={folder / 'runs.users' / 'run'} is not empty"
    assert first["runs.users"]["said"].startswith(refused)
    assert second["runs.users"]["said"].startswith(f"rank 0 ended: {refused}")
    assert first["runs.users"]["again"] == second["runs.users"]["again"] == 12


def test_a_process_does_not_wait_for_ever(shared):
    _, (first, _) = shared
    assert "did not answer in time" in first["runs.waits"]


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_shared_is_refused_in_one_line_by_all(name, shared):
    folder, found = shared
    _, expected = REFUSED[name]
    assert not (folder / f"runs.{name}" / "run").exists()
    for rank in found:
        assert expected in rank[f"runs.{name}"]
        assert "\n" not in rank[f"runs.{name}"]
