"""SIGKILL at random moments, also of what goes on after a kill: every end is bit-identical."""

import random
import sys
import time

import pytest

from .. import forked
from .killing import KINDS, Killer, endings

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs a fork server")


def campaign(kind, kills, folder, seed):
    """Kill until so many processes have been; return how many were while they went on."""
    draw = random.Random(seed)
    killer = Killer(folder / "log")
    # The server has imported everything after the first command.
    assert forked.run(["train", "--cfg"], folder=folder, out=folder / "log") == 0
    seconds = killer.whole(kind, folder / "whole")
    expected = endings(folder / "whole")
    assert len(expected) >= 4
    killed = resumed = runs = 0
    while killed < kills:
        runs += 1
        assert runs < 20 * kills, "they end before they are killed"
        place = folder / f"run{runs}"
        # Three kills of a run at most: each later one falls while it goes on.
        for number in range(min(3, kills - killed)):
            began = killer.is_done(kind, place)
            status = None if began else killer.call(kind, place, draw.uniform(0, seconds))
            if status is None or status == 0:
                break
            assert status == -9, (folder / "log").read_text()[-2000:]
            killed += 1
            resumed += number > 0
            time.sleep(0.05 if kind.command == "train" else 2.0)  # what it had begun ends
        killer.finish(kind, place)
        found = endings(place)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name] == value, (place, name)
    return resumed


@pytest.mark.slow
def test_a_handful_of_kills_of_seeds_changes_nothing(tmp_path):
    """Kills of a single run at chosen moments are in ``core/runs/test_kill.py``."""
    campaign(KINDS["seeds"], 3, tmp_path, seed="seeds")


@pytest.mark.faults
@pytest.mark.parametrize("name", KINDS)
def test_two_hundred_kills_change_nothing(tmp_path, name):
    kills = KINDS[name].kills
    resumed = campaign(KINDS[name], kills, tmp_path, seed=f"long {name}")
    print(f"{name}: {kills} kills, {resumed} of them of a run that went on")


def test_the_long_form_kills_two_hundred():
    assert sum(kind.kills for kind in KINDS.values()) == 200
