"""Runs in which the power fails at one write after another."""

import os
from pathlib import Path

import pytest

from metaloss.core.training import recorder

from ..interrupted_runs import RUNS, resume, train
from ..same_ending import assert_same_ending


class Crash(BaseException):
    """The power is cut: no ``except Exception`` may catch it."""


class Saboteur:
    """Lets the power fail at a numbered one of all writes."""

    def __init__(self, monkeypatch):
        self.left = None
        self.count = 0
        for owner, name in (
            (os, "fsync"),
            (Path, "replace"),
            (Path, "unlink"),
            (recorder.Journal, "write"),
        ):
            for when in ("before", "after"):
                self._plant(monkeypatch, owner, name, when)

    def _plant(self, monkeypatch, owner, name, when):
        original = getattr(owner, name)

        def sabotaged(*args, **kwargs):
            if when == "before":
                self._tick()
            result = original(*args, **kwargs)
            if when == "after":
                self._tick()
            return result

        monkeypatch.setattr(owner, name, sabotaged)

    def _tick(self):
        self.count += 1
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                self.left = None
                raise Crash


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_crash_at_a_write_changes_nothing_in_the_end(name, tmp_path, monkeypatch):
    """The schedules share the places: the first writes, then by a stride through all kinds."""
    first = 1 + list(RUNS).index(name)
    places = [*range(first, 40, 8), *range(40 + 17 * first, 10**4, 67)]
    crash_at(places, RUNS[name], tmp_path, monkeypatch)


@pytest.mark.faults
@pytest.mark.parametrize("name", RUNS)
def test_a_crash_at_any_write_changes_nothing_in_the_end(name, tmp_path, monkeypatch):
    crash_at(range(1, 10**4, 3), RUNS[name], tmp_path, monkeypatch)


def crash_at(places, words, tmp_path, monkeypatch):
    train(tmp_path / "whole", *words)
    saboteur = Saboteur(monkeypatch)
    train(tmp_path / "counted", *words)
    count = saboteur.count
    assert count > 100
    crashed = 0
    for place in [place for place in places if place < count]:
        folder = tmp_path / f"{place}"
        saboteur.left = place
        try:
            train(folder, *words)
        except Crash:
            crashed += 1
        saboteur.left = None
        if not (folder / "config.yaml").exists():
            continue
        if not (folder / "summary.json").exists():
            resume(folder)
        assert_same_ending(folder, tmp_path / "whole")
    assert crashed > 3
