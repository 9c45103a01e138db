"""Disks that are full, read-only or slow at each kind of write; folders that vanish."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
from torch.nn import functional as F

import metaloss
from metaloss.core.execution.processes import CONTEXT
from metaloss.core.runs.run import resume_group, resume_run
from metaloss.errors import MetalossError

from .. import forked
from .disks import FAILURES, Disk
from .killing import SMALL, endings

WORDS = (*SMALL, "tracker=[]", "loss.hidden=[6]", "start.steps=20", "steps=12", "schedule=online")
EVERY = ("log_every=2", "eval_every=4", "checkpoint_every=3", "guard=off")


def train(folder, *words):
    return metaloss.train([*WORDS, *EVERY, f"output={folder}", *words])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(folder)
    return endings(folder)


@pytest.fixture
def disk(monkeypatch, tmp_path):
    return Disk(monkeypatch, tmp_path / "disk")


def refused_then_finished(disk, folder, whole, at, error):
    """Let the disk fail from a write on; go on when it works again. Return whether it failed."""
    caught = None
    with disk.failing(at, error):
        try:
            train(folder)
        except MetalossError as refused:
            caught = refused
    failed = caught is not None
    if failed:
        assert os.strerror(error) in str(caught)
        assert "\n" not in str(caught)
        assert caught.exit_status == 2
    assert not list(folder.rglob("*.tmp")), "nothing is half-written"
    for name in ("journal.jsonl", "curves.jsonl"):
        if (folder / name).exists() and (folder / name).stat().st_size:
            assert (folder / name).read_bytes().endswith(b"}\n"), "a line is whole or not there"
    if failed:
        if (folder / "summary.json").exists():
            # All was written by then: what failed was to make sure of the last file.
            assert json.loads((folder / "summary.json").read_text())["status"] == "ok"
        elif (folder / "config.yaml").exists():
            resume_run(folder)
        else:
            train(folder)
    found = endings(folder)
    assert found.keys() == whole.keys()
    for name, value in whole.items():
        assert found[name] == value, (at, name)
    return failed


def all_writes(disk, tmp_path):
    # The folder above the runs is made by the first of them alone.
    (tmp_path / "disk").mkdir(exist_ok=True)
    disk.count = 0
    train(tmp_path / "disk/counted")
    assert disk.kinds == {"open", "write", "replace", "mkdir", "fsync"}
    assert disk.count > 80
    return disk.count


@pytest.mark.slow
@pytest.mark.parametrize("failure", ["full", "read-only"])
def test_a_run_ends_in_one_line_and_goes_on_when_there_is_room(disk, whole, tmp_path, failure):
    count = all_writes(disk, tmp_path)
    places = sorted({1, 3, 12, *range(list(FAILURES).index(failure) + 17, count, 37)})
    failed = [
        refused_then_finished(disk, tmp_path / f"disk/{at}", whole, at, FAILURES[failure])
        for at in places
    ]
    assert sum(failed) >= len(places) - 1


@pytest.mark.faults
@pytest.mark.parametrize("failure", FAILURES)
def test_every_single_write_may_fail(disk, whole, tmp_path, failure):
    count = all_writes(disk, tmp_path)
    failed = 0
    for at in range(1, count + 1):
        folder = tmp_path / f"disk/{at}"
        failed += refused_then_finished(disk, folder, whole, at, FAILURES[failure])
        shutil.rmtree(folder)
    print(f"{failure}: {failed} of {count} writes failed, every run was finished afterwards")
    assert failed >= count - 1


def test_a_slow_disk_changes_nothing(disk, whole, tmp_path):
    disk.delay = 0.002
    train(tmp_path / "disk/run")
    assert disk.count > 80
    assert endings(tmp_path / "disk/run") == whole


def with_task_loss(act):
    """Return the task whose task loss does something once, at its eighth call."""
    task = metaloss.registry.get("task", "digits").cls(subset=120).build(seed=0)
    calls = []

    def task_loss(outputs, targets):
        calls.append(1)
        if len(calls) == 8:
            act()
        return F.cross_entropy(outputs, targets)

    return replace(task, task_loss=task_loss)


@pytest.mark.parametrize("how", ["removed", "moved"])
def test_a_folder_that_vanishes_ends_the_run_and_is_not_made_again(tmp_path, how):
    folder = tmp_path / "run"

    def act():
        assert (folder / "journal.jsonl").exists()
        if how == "removed":
            shutil.rmtree(folder)
        else:
            folder.rename(tmp_path / "elsewhere")

    words = [word for word in WORDS if not word.startswith("task")]
    with pytest.raises(MetalossError, match=r"the journal .* is gone .*removed or moved"):
        metaloss.train([*words, *EVERY, f"output={folder}"], task=with_task_loss(act))
    assert not folder.exists()


def test_of_two_runs_that_begin_in_one_folder_one_is_refused_and_the_other_is_whole(
    tmp_path, whole
):
    folder = tmp_path / "run"
    began, ended = threading.Barrier(2, timeout=60), []

    def begin(steps):
        began.wait()
        try:
            train(folder, f"steps={steps}")
            ended.append(steps)
        except MetalossError as error:
            ended.append(str(error))

    threads = [threading.Thread(target=begin, args=(12,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (message,) = [one for one in ended if isinstance(one, str)]
    assert "another run is just beginning in it" in message or "is not empty" in message
    assert endings(folder) == whole


def test_what_a_kill_in_the_first_moments_leaves_is_nothing(tmp_path, whole):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("plugins.json", "made_of.json", ".config.yaml.123.tmp"):
        (folder / name).write_text("{}")
    train(folder)
    assert endings(folder) == whole
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.tmp").touch()
    with pytest.raises(MetalossError, match="is not empty"):
        train(tmp_path / "other")


def test_a_name_that_is_too_long_is_one_line(tmp_path):
    with pytest.raises(MetalossError, match="cannot be written: File name too long"):
        train(tmp_path / ("x" * 300))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux")
def test_output_that_cannot_be_written_is_one_line_and_2_and_the_run_is_whole(tmp_path):
    words = ["train", *WORDS, *EVERY, "output=run"]
    assert forked.run(words, folder=tmp_path, out="/dev/full") == 2
    assert (tmp_path / "run/summary.json").is_file()
    # Both outputs to a reader that has left: the run goes on to its end.
    words = [*words, "output=unread", "tracker=[console]"]
    read, write = CONTEXT.Pipe(duplex=False)
    read.close()
    with write:
        assert forked.run(words, folder=tmp_path, out=write) == 0
    assert (tmp_path / "unread/summary.json").is_file()
    # A new Python, which closes its outputs itself when it ends; --version needs no torch.
    code = "import sys; from metaloss.cli.main import main; sys.exit(main(['--version']))"
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr == (
        "metaloss: error: standard output cannot be written: No space left on device\n"
    )


def test_seeds_that_were_stopped_before_each_had_a_checkpoint_begin_anew(tmp_path):
    words = [*WORDS, *EVERY, "seeds=3"]
    metaloss.train_seeds([*words, f"output={tmp_path / 'whole'}"])
    expected = endings(tmp_path / "whole")
    for left in (0, 1, 2):
        folder = tmp_path / f"left{left}"
        stopped = metaloss.train_seeds([*words, f"output={folder}", "steps=2"])
        assert len(stopped) == 3
        for seed in range(3):
            run = folder / f"seed{seed}"
            (run / "summary.json").unlink()
            for path in (run / "checkpoints").iterdir():
                # Of the first so many members, the first checkpoint.
                if seed >= left or int(path.stem) > 20:
                    path.unlink()
            text = (run / "config.yaml").read_text().replace("steps: 2\n", "steps: 12\n")
            (run / "config.yaml").write_text(text)
            for name in ("journal.jsonl", "curves.jsonl"):
                lines = (run / name).read_bytes().splitlines(keepends=True)
                (run / name).write_bytes(b"".join(lines[:1]))
        if left == 0:
            shutil.rmtree(folder / "seed2")  # and the last was not even made
        resume_group(folder)
        found = endings(folder)
        assert found.keys() == expected.keys()
        assert found == expected


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_what_clusters_send_is_heard_in_the_start_and_later(tmp_path, whole, number):
    words = [word for word in WORDS if not word.startswith("task")]
    for at, start in ((1, 250), (8, 20)):
        sent = []

        def act(at=at, sent=sent):
            sent.append(at)
            signal.raise_signal(number)

        task = metaloss.registry.get("task", "digits").cls(subset=120).build(seed=0)
        given = task.task_loss
        calls = []

        def measured(outputs, targets, at=at, calls=calls, given=given, act=act):
            calls.append(1)
            if len(calls) == at:
                act()
            return given(outputs, targets)

        folder = tmp_path / f"at{at}"
        with pytest.raises(KeyboardInterrupt, match="--resume"):
            metaloss.train(
                [*words, *EVERY, f"output={folder}", f"start.steps={start}"],
                task=replace(task, task_loss=measured),
            )
        assert sent
        assert (folder / "checkpoints").exists() == (at > 1)
        resume_run(folder, task=task)
        assert not list(folder.rglob("*.tmp"))
        if start == 20:
            assert endings(folder) == whole
