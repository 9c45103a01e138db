"""Ctrl-C."""

import signal

import pytest

from metaloss.core.training.interrupt import Interrupt

from ..interrupted_runs import RUNS, interrupting, resume, train
from ..same_ending import assert_same_ending


@pytest.mark.parametrize("words", RUNS.values(), ids=RUNS)
def test_ctrl_c_writes_a_checkpoint_and_the_run_goes_on(words, tmp_path):
    train(tmp_path / "whole", *words)
    learns = "schedule=online" in words
    # After the start, whose one step asks once, in the middle of training.
    task = interrupting(at=1 + 18 if learns else 8)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match=r"continue with metaloss train --resume"):
        train(tmp_path / "run", *words, task=task)
    assert signal.getsignal(signal.SIGINT) is before
    assert len(list((tmp_path / "run/checkpoints").iterdir())) in (1, 2)
    assert not (tmp_path / "run/summary.json").exists()
    resume(tmp_path / "run")
    assert_same_ending(tmp_path / "run", tmp_path / "whole")


def test_ctrl_c_in_the_start_begins_anew(tmp_path):
    words = ("schedule=online", "start.steps=250")
    train(tmp_path / "whole", *words)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", *words, task=interrupting(at=1))
    assert not (tmp_path / "run/checkpoints").exists()
    resume(tmp_path / "run")
    assert_same_ending(tmp_path / "run", tmp_path / "whole")


def test_a_second_ctrl_c_acts_at_once(tmp_path):
    with pytest.raises(KeyboardInterrupt) as caught:
        train(tmp_path, *RUNS["next"], task=interrupting(at=1 + 10, times=2))
    assert not caught.value.args
    resume(tmp_path)


def test_sigterm_is_heard_like_ctrl_c():
    with Interrupt() as interrupt:
        interrupt.check("hint")
        signal.raise_signal(signal.SIGTERM)
        assert interrupt.asked
        with pytest.raises(KeyboardInterrupt, match="hint"):
            interrupt.check("hint")


def test_ctrl_c_and_sigterm_are_one_request_and_two_of_a_kind_act_at_once():
    with Interrupt() as interrupt:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert interrupt.asked
        with pytest.raises(KeyboardInterrupt) as caught:
            signal.raise_signal(signal.SIGTERM)
        assert not caught.value.args


def test_other_threads_are_left_without_handlers():
    import threading

    seen = []

    def work():
        with Interrupt() as interrupt:
            seen.append(interrupt.asked)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
