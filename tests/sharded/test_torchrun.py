"""The real command under the real launcher."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from metaloss.cli.main import main
from metaloss.core.storage.run_folder import read_rows

WORDS = (
    "task=digits",
    "task.subset=200",
    "model.hidden=[16]",
    "model.batch_norm=true",
    "model.dropout=0.2",
    "start.steps=300",
    "log_every=3",
    "eval_every=6",
    "checkpoint_every=6",
    "device=cpu",
    "tracker=[]",
)
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


def said(errors):
    """Return what metaloss said, without what the launcher adds."""
    return [line for line in errors.splitlines() if line.startswith("metaloss: ")]


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
    # What one process refuses is said once, though both end.
    process = start(tmp_path, "output=launched")
    _, err = process.communicate(timeout=600)
    assert process.returncode != 0
    (line,) = said(err)
    assert line.startswith("metaloss: error: output=launched is not empty: ")


@pytest.mark.slow
def test_ctrl_c_reaches_every_process_and_is_answered_once(tmp_path):
    process = start(tmp_path, "steps=1000000", "output=run")
    journal = tmp_path / "run" / "journal.jsonl"
    try:
        deadline = time.monotonic() + 600
        while not (journal.exists() and read_rows(journal)[-1:] and _trains(journal)):
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


def _trains(journal):
    return any(row["phase"] == "train" and row["phase_step"] for row in read_rows(journal))
