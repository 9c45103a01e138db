"""A ``--multirun`` that broke off is finished by its own call; groups go on with own objects."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

import metaloss
from metaloss.cli.main import main
from metaloss.core.runs.run import resume_group
from metaloss.core.training.interrupt import Interrupt, endings_as_ctrl_c
from metaloss.errors import MetalossError
from metaloss.models.mlp import MLP, MLPConfig

from .killing import SMALL, endings

WORDS = (*SMALL, "tracker=[]", "schedule=static", "loss=gce", "steps=12", "start=keep")


def statuses(folder):
    return [json.loads(line)["status"] for line in (folder / "jobs.jsonl").read_text().splitlines()]


def test_a_broken_off_sweep_is_finished_by_its_own_call(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    call = ["train", "--multirun", *WORDS, "seed=0,1,2,3", "output=out"]
    assert main(call) == 0
    out = tmp_path / "out"
    whole = endings(out)
    # As if it had been killed: job 1 in training, job 2 before its checkpoint, job 3 not begun.
    (out / "1/summary.json").unlink()
    max((out / "1/checkpoints").iterdir()).unlink()
    (out / "2/summary.json").unlink()
    shutil.rmtree(out / "2/checkpoints")
    shutil.rmtree(out / "3")
    (out / "jobs.jsonl").unlink()
    kept = (out / "0/summary.json").stat().st_mtime_ns
    capsys.readouterr()
    assert main(call) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{out}: 4 jobs, 4 of them finished"
    assert endings(out) == whole
    assert statuses(out) == [0, 0, 0, 0]
    assert (out / "0/summary.json").stat().st_mtime_ns == kept, "what is finished is kept"


def test_another_call_does_not_take_a_sweeps_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--multirun", *WORDS, "seed=0", "output=out"]) == 0
    before = endings(tmp_path / "out")
    capsys.readouterr()
    assert main(["train", "--multirun", *WORDS, "seed=0", "inner.lr=0.5", "output=out"]) == 2
    said = capsys.readouterr().err
    assert "job 0: " in said
    assert "was trained with inner.lr=" in said
    assert endings(tmp_path / "out") == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_before_a_run_begins_ends_the_command_like_ctrl_c(
    tmp_path, monkeypatch, capsys, number
):
    def ask(*_, **__):
        signal.raise_signal(number)
        raise AssertionError("not reached")

    monkeypatch.setattr("metaloss.core.runs.begin.prepare", ask)
    before = signal.getsignal(number)
    assert main(["train", f"output={tmp_path / 'run'}"]) == 130
    assert capsys.readouterr().err == "metaloss: interrupted\n"
    assert signal.getsignal(number) is before


def test_what_a_program_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with endings_as_ctrl_c(), Interrupt() as interrupt:
            signal.raise_signal(signal.SIGHUP)
            assert not interrupt.asked
            signal.raise_signal(signal.SIGUSR1)
            assert interrupt.asked
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_group_of_own_objects_goes_on_with_them(tmp_path):
    task = metaloss.registry.get("task", "digits").cls(subset=120).build(seed=0)
    other = metaloss.registry.get("task", "digits").cls(subset=120).build(seed=1)
    model = MLP(MLPConfig(hidden=[5]), input_shape=(64,), outputs=10)
    words = [word for word in WORDS if not word.startswith(("task", "model"))]
    words += ["seeds=2", "steps=12"]
    metaloss.train_seeds([*words, f"output={tmp_path / 'whole'}"], task=task, model=model)
    metaloss.train_seeds([*words, f"output={tmp_path / 'run'}"], task=task, model=model)
    for seed in (0, 1):
        run = tmp_path / f"run/seed{seed}"
        (run / "summary.json").unlink()
        max((run / "checkpoints").iterdir()).unlink()
    with pytest.raises(MetalossError, match="with a task of your own"):
        resume_group(tmp_path / "run")
    with pytest.raises(MetalossError, match="rows are not those that the run was made with"):
        resume_group(tmp_path / "run", task=other, model=model)
    plugins = {"/a/mine.py": "c" * 64}
    runs = metaloss.resume_group(tmp_path / "run", task=task, model=model, plugins=plugins)
    assert [run.summary.plugins for run in runs] == [plugins, plugins]
    assert endings(tmp_path / "run") == endings(tmp_path / "whole")


def test_output_that_nobody_reads_any_more_is_no_error(tmp_path):
    code = "import sys; from metaloss.cli.main import main; sys.exit(main(['list', 'loss']))"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")
