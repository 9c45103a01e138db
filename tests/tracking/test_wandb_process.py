"""The picture of the curves, and what W&B leaves in the process of a run."""

import os
import re
import subprocess
import sys
import textwrap

import matplotlib
import numpy as np
import pytest

from metaloss.contracts import LossCurves
from metaloss.tracking import wandb_process
from metaloss.tracking.curve_picture import draw

from .conftest import private_places
from .wandb_reader import read_run


def test_a_picture_shows_every_curve_and_touches_no_global_state():
    def world():
        # Asking for the backend in the ordinary way would choose one.
        settings = {name: value for name, value in matplotlib.rcParams.items() if name != "backend"}
        return matplotlib.get_backend(auto_select=False), settings

    before = world()
    grid = np.linspace(0.005, 0.995, 101)
    falling, rising = tuple(-np.log(grid)), tuple(0.1 * grid)
    both = {"t=0": rising, "t=1": falling}
    events = [
        LossCurves(step=step, phase="train", grid=tuple(grid), curves=both) for step in (15, 25)
    ]
    image = draw(events, offset=10, softmax=True)
    assert image.dtype == np.uint8
    assert image.shape == (960, 1440, 3)
    one = draw(events[1:], offset=10, softmax=True)
    assert (image != one).any()  # two steps, and one
    bad = LossCurves(step=30, phase="train", grid=(0.0,), curves={"t=0": (float("inf"),)})
    assert draw([*events, bad], offset=10, softmax=True) is None
    assert world() == before
    # Without pyplot no figure is kept anywhere; whether it is imported is others' business.
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []


def test_a_run_that_cannot_be_opened_leaves_nothing_behind(monkeypatch, no_key):
    wandb = pytest.importorskip("wandb")
    torn_down = []
    monkeypatch.setattr(wandb, "teardown", lambda: torn_down.append(True))

    def init(**options):
        monkeypatch.setattr(sys, "exit", print)
        os.environ["WANDB_SERVICE"] = "3-1-tcp"
        raise KeyboardInterrupt

    monkeypatch.setattr(wandb, "init", init)
    before = sys.exit
    with pytest.raises(KeyboardInterrupt):
        wandb_process.open_run(mode="offline")
    assert sys.exit is before
    assert "WANDB_SERVICE" not in os.environ
    assert torn_down == [True]


def test_without_a_key_and_without_an_input_nothing_is_asked(tmp_path):
    program = """
        import logging, os, signal, sys, warnings
        warnings.simplefilter("error")
        from pathlib import Path
        from metaloss.contracts import Logged, RunStarted
        from metaloss.tracking.fanout import Fanout
        from metaloss.tracking.wandb import WandB, WandBConfig

        def process():
            handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
            root = logging.getLogger()
            hooks = (sys.exit, sys.excepthook, sys.stdout, sys.stderr)
            return handlers, hooks, dict(os.environ), root.level, list(root.handlers)

        before = process()
        fanout = Fanout({"wandb": WandB(WandBConfig())})
        fanout.handle(RunStarted(
            config={}, folder=Path("run"), name="run", totals={"train": 2}, goal="min"
        ))
        assert process() == before, "changed while the run is open"
        fanout.handle(Logged(step=1, phase="train", phase_step=1, numbers={"train/loss": 1.0}))
        try:
            raise KeyboardInterrupt
        finally:
            try:
                fanout.close()
            finally:
                assert process() == before, "changed after the run"
                try:
                    os.waitpid(-1, os.WNOHANG)
                    print("a child process is left")
                except ChildProcessError:
                    print("all gone")
    """
    (tmp_path / "run").mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**kept, **private_places(tmp_path), "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"},
        cwd=tmp_path,
        timeout=100,
    )
    assert done.stdout == "all gone\n", done.stderr
    assert re.search(r"^KeyboardInterrupt$", done.stderr, re.MULTILINE)
    assert "upload it with: wandb sync" in done.stderr
    recorded = read_run(tmp_path / "run")
    assert recorded.history[0][1]["train/loss"] == 1.0
    assert recorded.exit_code == 255
    # No key and no setting was written to the person's home, only the service's own log.
    assert [path.name for path in (tmp_path / "home").iterdir()] in ([], [".cache"])
