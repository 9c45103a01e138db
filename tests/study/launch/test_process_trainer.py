"""The words that a run's process gets, and how its end is told."""

import fcntl
import os
from concurrent.futures import Future
from pathlib import Path

import pytest

from metaloss.core.execution.executor import LostError, StoppedError
from metaloss.core.storage.run_folder import is_busy
from metaloss.errors import MetalossError
from metaloss.study.launch.launch import ProcessTrainer, RefusedError, run_command

# ---------------------------------------------------------------- the words of a run's process


class Executor:
    """Notes what it is asked to call; the call prints a line, and ends as it is told."""

    room = 3

    def __init__(self, end):
        self.end, self.calls, self.stopped = end, [], False

    def submit(self, function, *arguments):
        assert function is run_command
        self.calls.append(arguments)
        future = Future()
        arguments[1].write_text("working\nmetaloss: error: steps=0\n")
        if isinstance(self.end, Exception):
            future.set_exception(self.end)
        else:
            future.set_result(self.end)
        return future

    def stop(self):
        self.stopped = True


@pytest.mark.parametrize(("status", "word"), [(0, "ok"), (3, "diverged")])
def test_a_process_gets_the_words_and_tells_how_it_ended(tmp_path, status, word):
    executor, folder = Executor(status), tmp_path / "a run" / "seed0"
    with ProcessTrainer(executor=executor, arguments=["--plugin", "mine.py"]) as train:
        assert train.room == 3
        assert train(["loss=mlp", "seed=0"], folder, resume=False) == word
    [(words, log)] = executor.calls
    assert words == ["train", "loss=mlp", "seed=0", f"output='{folder}'", "--plugin", "mine.py"]
    assert log == tmp_path / "a run" / "seed0.log"
    assert executor.stopped


def test_a_process_resumes_with_nothing_but_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    executor = Executor(0)
    ProcessTrainer(executor=executor)(["loss=mlp"], Path("run"), resume=True)
    assert executor.calls[0][0] == ["train", "--resume", str(tmp_path / "run")]


@pytest.mark.parametrize(
    ("end", "kind", "message"),
    [
        (2, RefusedError, "exit status 2: metaloss: error: steps=0 (see "),
        (1, MetalossError, "exit status 1: metaloss: error: steps=0 (see "),
        (LostError("it was lost"), MetalossError, "it was lost: metaloss: error: steps=0 (see "),
        (StoppedError("stopped"), MetalossError, "stopped"),
    ],
)
def test_a_process_that_fails_says_why(tmp_path, end, kind, message):
    train, folder = ProcessTrainer(executor=Executor(end)), tmp_path / "run"
    with pytest.raises(MetalossError) as caught:
        train([], folder, resume=False)
    assert type(caught.value) is kind
    assert str(caught.value).startswith(f"{folder}: {message}")


def test_what_a_command_prints_goes_to_the_log_and_nothing_after_it(tmp_path, capfd, monkeypatch):
    log = tmp_path / "log"
    log.write_text("before\n")

    def main(words):
        for number, text in enumerate(words, start=1):
            os.write(number, text.encode())
        return 7

    monkeypatch.setattr("metaloss.cli.main.main", main)
    assert run_command(["said ", "and complained"], log) == 7
    os.write(1, b"ours")
    assert capfd.readouterr() == ("ours", "")
    assert log.read_text() == "before\nsaid and complained"


def test_a_machine_that_does_not_share_the_folder_says_so(tmp_path):
    with pytest.raises(MetalossError, match=r"none is not on the machine .* file system that they"):
        run_command(["list"], tmp_path / "none" / "log")


def test_a_folder_that_is_still_trained_is_known(tmp_path):
    assert not is_busy(tmp_path / "none")
    assert not is_busy(tmp_path)
    number = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(number, fcntl.LOCK_EX)
    assert is_busy(tmp_path)
    os.close(number)
    journal = (tmp_path / "journal.jsonl").open("ab")
    fcntl.flock(journal, fcntl.LOCK_EX)
    assert is_busy(tmp_path)
    journal.close()
    assert not is_busy(tmp_path)
    (tmp_path / "first").mkdir()
    with (tmp_path / "first" / "journal.jsonl").open("ab") as journal:
        fcntl.flock(journal, fcntl.LOCK_EX)
        assert is_busy(tmp_path)
