"""Who has which rows, which device, and what may not be done together."""

from datetime import timedelta

import pytest
import torch

from metaloss.cli.options import heard
from metaloss.core.distributed import launch as processes
from metaloss.errors import MetalossError
from metaloss.inner.keys import uniform
from metaloss.inner.processes.ranks import LostRankError, Ranks

LAUNCHER = {
    "RANK": "1",
    "WORLD_SIZE": "3",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "1",
}


@pytest.fixture
def launched(monkeypatch):
    """Pretend to be process 1 of 3."""
    for name, value in LAUNCHER.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.mark.parametrize("total", [3, 7, 8, 9])
def test_shares_are_all_rows_once_in_order(total):
    shares = [Ranks(rank=rank, size=3).share(total) for rank in range(3)]
    rows = [row for share in shares for row in range(share.first, share.first + share.rows)]
    assert rows == list(range(total))
    assert max(share.rows for share in shares) - min(share.rows for share in shares) <= 1
    assert [share.rows for share in shares] == Ranks(size=3).sizes(total)


def test_a_part_of_a_mask_is_drawn_as_in_the_whole():
    key = torch.tensor(12345)
    whole = uniform(key, 3, torch.Size((6, 4)))
    assert torch.equal(uniform(key, 3, torch.Size((2, 4)), first=12), whole[3:5])


def test_a_launcher_is_known_by_all_that_it_sets(launched):
    assert processes.launched() == 3
    launched.delenv("MASTER_PORT")
    assert processes.launched() == 1


def test_what_a_launcher_has_set_wrong_is_told_in_one_line(launched):
    launched.setenv("WORLD_SIZE", "two")
    with pytest.raises(MetalossError, match="WORLD_SIZE='two': expected an integer, as a launcher"):
        processes.launched()


def test_a_process_that_nobody_joins_says_so_in_one_line(launched):
    alone = processes.joined("cpu", timedelta(seconds=1))
    with pytest.raises(LostRankError, match="rank 1 of 3 did not find the other") as caught:
        alone.__enter__()
    assert "\n" not in str(caught.value)


def test_each_process_takes_the_gpu_of_its_number(launched):
    launched.setattr(torch.cuda, "is_available", lambda: True)
    launched.setattr(torch.cuda, "device_count", lambda: 2)
    ranks = Ranks(rank=1, size=3)
    assert processes.own_device("auto", ranks) == processes.own_device("cuda", ranks) == "cuda:1"
    assert processes.own_device("cpu", ranks) == "cpu"
    assert processes.own_device("cuda:0", Ranks()) == "cuda:0"
    launched.setenv("LOCAL_RANK", "2")
    with pytest.raises(MetalossError, match="process 2 of this machine has no CUDA device"):
        processes.own_device("auto", ranks)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "seeds=2", "output=x"), "seeds=2 is not possible in 3 processes"),
        (("train", "--multirun", "seed=0,1"), "--multirun is not possible in 3 processes"),
        (("compare", "out"), "compare is not possible in 3 processes"),
    ],
)
def test_commands_of_many_runs_are_refused(launched, capsys, tmp_path, arguments, message):
    from metaloss.cli.main import main

    launched.setenv("LOCAL_RANK", "0")
    launched.chdir(tmp_path)
    assert main(arguments) == 2
    assert f"metaloss: error: {message}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_of_one_error_in_all_processes_one_speaks(launched):
    launched.setattr("time.sleep", lambda seconds: None)
    told, first = MetalossError("x"), MetalossError("x")
    told.quiet, first.quiet = True, False
    assert heard(first)
    assert not heard(told)
    assert not heard()  # of a finished run, process 0 does
    launched.setenv("RANK", "0")
    assert heard()


def test_alone_nothing_is_said_to_anybody():
    alone = Ranks()
    values = {"a": torch.arange(3.0), "b": None}
    assert alone.broadcast(values) is values
    assert alone.any(True)
    assert alone.same("x") == "x"
    assert alone.leads
