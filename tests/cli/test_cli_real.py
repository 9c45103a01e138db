"""The command line on the real core: a run, Ctrl-C, and the run going on."""

import json
import os
import signal
import time

import yaml

from metaloss.compose import compose

from .. import forked

WORDS = ("start.steps=5", "log_every=1", "eval_every=50", "tracker=[]")


def rows(folder):
    journal = folder / "journal.jsonl"
    text = journal.read_text() if journal.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def test_a_run_leaves_a_config_that_makes_the_same_run(cli, tmp_path):
    status, out, err = cli("train", *WORDS, "steps=4", "inner.lr=0.03", "output=run")
    assert (status, err) == (0, "")
    assert out.startswith("run: ok, ")
    path = tmp_path / "run" / "config.yaml"
    assert yaml.safe_load(path.read_text())["inner"]["lr"] == 0.03
    # What "auto" decided is stored.
    assert compose(config_file=path) == compose([*WORDS, "steps=4", "inner.lr=0.03", "compile=off"])
    status, _, err = cli("train", *WORDS, "output=run")
    assert status == 2
    assert err.startswith("metaloss: error: output=run is not empty: ")


def test_ctrl_c_leaves_a_checkpoint_from_which_the_run_goes_on(cli, tmp_path):
    run = tmp_path / "run"
    words = ("train", *WORDS, "steps=1000000", "compile=off", "output=run")
    said = tmp_path / "err"
    process = forked.begin(words, folder=tmp_path, out=tmp_path / "out", err=said)
    try:
        deadline = time.monotonic() + 60
        while not any(row["phase"] == "train" for row in rows(run)):
            assert process.is_alive(), said.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        process.join(60)
    finally:
        process.kill()
    assert process.exitcode == 130
    assert said.read_text().startswith("metaloss: interrupted")
    assert list((run / "checkpoints").iterdir())
    assert not (run / "summary.json").exists()
    done = rows(run)[-1]["phase_step"]
    status, _, err = cli("train", "--resume", run, f"steps={done + 5}")
    assert (status, err) == (0, "")
    assert json.loads((run / "summary.json").read_text())["steps"] == done + 5
    assert rows(run)[-1]["phase_step"] == done + 5
