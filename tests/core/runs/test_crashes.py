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
@pytest.mark.parametrize("words", RUNS.values(), ids=RUNS)
def test_a_crash_at_any_write_changes_nothing_in_the_end(words, tmp_path, monkeypatch):
    train(tmp_path / "whole", *words)
    saboteur = Saboteur(monkeypatch)
    train(tmp_path / "counted", *words)
    count = saboteur.count
    assert count > 100
    crashed = 0
    # The first writes closely, with the first checkpoint among them; then by a stride that visits
    # all kinds: every single one would take minutes.
    for place in (*range(1, 40, 4), *range(40, count, 31)):
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
