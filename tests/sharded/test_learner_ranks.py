"""A learner in two processes, each with its rows, is the learner of one with all rows."""

import pytest
import torch

from .loops import REFUSED
from .processes import run, together

EXACT = ("momentum", "adam", "frozen", "written", "accumulated", "weighted", "named")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Return what each of two processes came to."""
    folder = tmp_path_factory.mktemp("loops")
    return together(folder, *(f"loops.{name}" for name in (*EXACT, "spoiled", "refused")))


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """Return what every case begins with."""
    return run("loops.begins", tmp_path_factory.mktemp("begin"))


@pytest.mark.parametrize("name", EXACT)
def test_steps_on_rows_of_two_ranks_are_those_of_one_process_on_all(name, found, before, tmp_path):
    expected = run(f"loops.{name}", tmp_path)
    assert not torch.equal(expected["loss 0"], before["loss 0"])
    assert torch.equal(expected["model 0"], before["model 0"]) == (name == "frozen")
    for rank in found:
        assert rank[f"loops.{name}"].keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(
                rank[f"loops.{name}"][key], value, rtol=1e-9, atol=1e-9, equal_nan=True
            )


@pytest.mark.parametrize("name", [*EXACT, "spoiled"])
def test_both_ranks_hold_the_same_bits(name, found):
    first, second = (rank[f"loops.{name}"] for rank in found)
    assert first.keys() == second.keys()
    for key, value in first.items():
        torch.testing.assert_close(second[key], value, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_part_the_ranks_is_refused_in_one_line_by_all(name, found):
    for rank in found:
        assert REFUSED[name][1] in rank["loops.refused"][name]
        assert "\n" not in rank["loops.refused"][name]
