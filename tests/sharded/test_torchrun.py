"""The real command under the real launcher, and what it says in processes begun as by one."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from metaloss.cli.main import main
from metaloss.core.storage.run_folder import read_rows

from .commands import WORDS, said, trains
from .processes import fork

LAUNCHED = [
    *(sys.executable, "-m", "torch.distributed.run"),
    *("--standalone", "--nproc-per-node=2", "-m", "metaloss"),
]


def start(folder, *words):
    return subprocess.Popen(
        [*LAUNCHED, "train", *WORDS, *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.slow
def test_torchrun_trains_the_run_of_one_process(tmp_path, capsys):
    summaries, journals = [], []
    for name in ("alone", "launched"):
        if name == "alone":
            assert main(["train", *WORDS, "steps=12", f"output={tmp_path / name}"]) == 0
            out = capsys.readouterr().out
        else:
            process = start(tmp_path, "steps=12", f"output={name}")
            out, err = process.communicate(timeout=600)
            assert process.returncode == 0, err
        assert out.count(f"{name}: ok, ") == 1
        folder = tmp_path / name
        summaries.append(json.loads((folder / "summary.json").read_text()))
        journals.append(read_rows(folder / "journal.jsonl"))
    # One folder, and nothing beside it.
    assert {path.name for path in tmp_path.iterdir()} == {"alone", "launched"}
    alone, launched = summaries
    assert launched["metrics"] == pytest.approx(alone["metrics"], abs=1e-6)
    assert launched["steps"] == alone["steps"] == 12
    assert [row["step"] for row in journals[1]] == [row["step"] for row in journals[0]]
    assert journals[1][-1]["test/task_loss"] == pytest.approx(
        journals[0][-1]["test/task_loss"], rel=1e-4
    )


def test_ctrl_c_in_every_process_is_answered_once(tmp_path):
    case = "commands.interrupted"
    ended = fork(tmp_path, case)
    assert [status for status, _ in ended] == [0, 0], ended
    assert [torch.load(tmp_path / f"{rank}.pt")[case] for rank in range(2)] == [130, 130]
    (line,) = [line for _, log in ended for line in said(log)]
    assert line.startswith("metaloss: interrupted: a checkpoint was written; continue with ")
    run = tmp_path / "commands.interrupted" / "run"
    assert list((run / "checkpoints").iterdir())
    assert not (run / "summary.json").exists()


@pytest.mark.faults
def test_what_one_process_refuses_is_said_once_though_both_end(tmp_path):
    """The launcher ends the others before they speak; who speaks is in ``test_ranks.py``."""
    (tmp_path / "launched").mkdir()
    (tmp_path / "launched" / "mine").touch()
    process = start(tmp_path, "output=launched")
    _, err = process.communicate(timeout=600)
    assert process.returncode != 0
    (line,) = said(err)
    assert line.startswith("metaloss: error: output=launched is not empty: ")


@pytest.mark.faults
def test_ctrl_c_reaches_every_process_through_the_launcher(tmp_path):
    process = start(tmp_path, "steps=1000000", "output=run")
    try:
        deadline = time.monotonic() + 600
        while not trains(tmp_path / "run"):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        # Killed, the launcher would leave its processes behind: it is asked to end them.
        process.terminate()
        process.communicate()
    (line,) = said(err)
    assert line.startswith("metaloss: interrupted: a checkpoint was written; continue with ")
    assert list((tmp_path / "run" / "checkpoints").iterdir())
    assert not (tmp_path / "run" / "summary.json").exists()
