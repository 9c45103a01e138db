"""Processes of a user's own loop: what one step sees of them, and what they are told."""

import pytest
import torch

from metaloss.core.distributed.peers import Peers
from metaloss.errors import MetalossError

from .meetings import REFUSED
from .processes import run, together


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Return what each of two processes was told."""
    folder = tmp_path_factory.mktemp("meetings")
    cases = ("refused", "shared", "words", "lost")
    return together(folder, *(f"meetings.{name}" for name in cases))


def test_rows_of_all_types_come_in_the_order_of_ranks(tmp_path):
    expected = run("meetings.rows", tmp_path / "alone")
    assert expected["torch.float64"].shape == (5, 4)
    for rank in together(tmp_path, "meetings.rows", size=3):
        for name, value in expected.items():
            assert torch.equal(rank["meetings.rows"][name], value), name


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_in_one_line_by_all(name, found):
    for rank in found:
        assert REFUSED[name][1] in rank["meetings.refused"][name]
        assert "\n" not in rank["meetings.refused"][name]


def test_of_an_error_in_one_process_the_others_are_told_where(found):
    first, second = (rank["meetings.refused"] for rank in found)
    assert first["wrong rows"] == f"rank 1: {second['wrong rows']}"
    assert first["breaks"] == "rank 1: OSError('no such file')"
    assert second["breaks"] == "told as it is: no such file"


def test_a_process_that_left_is_missed(found):
    assert found[0]["meetings.lost"].startswith("rank 0 of 2 lost another process of this run")


def test_what_can_be_shared_is(found):
    assert all(rank["meetings.shared"] for rank in found)


def test_where_gpus_alone_can_speak_a_second_group_carries_words_and_ends_with_it(found):
    for rank in found:
        assert rank["meetings.words"] == {
            "any": True,
            "every": [0, 1],
            "again": True,
            "kept": False,
        }


def test_processes_that_do_not_know_each_other_are_refused(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(MetalossError, match="a launcher has started 2 processes, but there is no"):
        Peers(dict, {})
