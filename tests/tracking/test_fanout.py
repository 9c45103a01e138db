"""Trackers fail; runs do not."""

import pytest

from metaloss.contracts import Noticed, RunFinished, Tracker
from metaloss.tracking.fanout import Fanout

EVENT = Noticed(step=7, message="hello")


class Listener(Tracker):
    def __init__(self, *, fails_on=(), fails_to_close=False, error=RuntimeError):
        self.heard, self.closed = [], 0
        self.fails_on, self.fails_to_close, self.error = fails_on, fails_to_close, error

    def handle(self, event):
        self.heard.append(event)
        if len(self.heard) in self.fails_on:
            raise self.error("disk full\nsecond line")

    def close(self):
        self.closed += 1
        if self.fails_to_close:
            raise self.error("stuck")


def test_every_tracker_hears_every_event_in_order():
    trackers = {"a": Listener(), "b": Listener()}
    fanout = Fanout(trackers)
    events = [EVENT, RunFinished(summary={})]
    for event in events:
        fanout.handle(event)
    fanout.close()
    assert [t.heard for t in trackers.values()] == [events, events]
    assert [t.closed for t in trackers.values()] == [1, 1]


def test_a_failing_tracker_is_disconnected_closed_and_told_of_once():
    bad, good = Listener(fails_on=(1,)), Listener()
    fanout = Fanout({"bad": bad, "good": good})
    fanout.handle(EVENT)
    fanout.handle(EVENT)
    fanout.close()
    message = "tracker 'bad' failed and was disconnected: RuntimeError: disk full"
    assert good.heard == [EVENT, Noticed(step=7, message=message), EVENT]
    assert len(bad.heard) == 1
    assert (bad.closed, good.closed) == (1, 1)


def test_the_last_tracker_to_fail_is_told_of_on_standard_error(capsys):
    fanout = Fanout({"only": Listener(fails_on=(1,))})
    fanout.handle(EVENT)
    fanout.handle(EVENT)
    expected = "tracker 'only' failed and was disconnected: RuntimeError: disk full"
    assert capsys.readouterr().err == f"metaloss: warning: {expected}\n"


def test_trackers_that_fail_over_the_news_of_a_failure_do_no_harm(capsys):
    # The second fails on being told of the first: nobody has heard of either.
    first, second = Listener(fails_on=(1,)), Listener(fails_on=(2,))
    fanout = Fanout({"first": first, "second": second})
    fanout.handle(EVENT)
    assert fanout.trackers == {}
    assert len(second.heard) == 2
    lines = capsys.readouterr().err.splitlines()
    assert ["'first'" in line for line in lines].count(True) == 1
    assert ["'second'" in line for line in lines].count(True) == 1


def test_all_may_fail_at_the_same_event(capsys):
    trackers = {name: Listener(fails_on=(1,)) for name in "abc"}
    Fanout(trackers).handle(EVENT)
    assert [len(t.heard) for t in trackers.values()] == [1, 1, 1]
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_a_failure_to_close_is_told_and_the_others_are_closed(capsys):
    bad, good = Listener(fails_to_close=True), Listener()
    Fanout({"good": good, "bad": bad}).close()
    assert good.closed == bad.closed == 1
    told = [event.message for event in good.heard] + [capsys.readouterr().err]
    assert any("tracker 'bad' could not be closed: RuntimeError: stuck" in text for text in told)


def test_a_failure_to_close_after_a_failure_is_told_in_the_same_line():
    good = Listener()
    Fanout({"bad": Listener(fails_on=(1,), fails_to_close=True), "good": good}).handle(EVENT)
    assert good.heard[1].message.endswith(
        "disk full (and could not be closed: RuntimeError: stuck)"
    )


def test_ctrl_c_in_a_tracker_passes_through():
    fanout = Fanout({"slow": Listener(fails_on=(1,), error=KeyboardInterrupt)})
    with pytest.raises(KeyboardInterrupt):
        fanout.handle(EVENT)
    assert list(fanout.trackers) == ["slow"]


def test_ctrl_c_while_closing_still_closes_the_others():
    trackers = {"a": Listener(), "b": Listener(fails_to_close=True, error=KeyboardInterrupt)}
    fanout = Fanout(trackers)
    with pytest.raises(KeyboardInterrupt):
        fanout.close()
    assert [t.closed for t in trackers.values()] == [1, 1]


def test_a_standard_error_that_is_gone_does_not_stop_the_run(monkeypatch):
    class Gone:
        def write(self, text):
            raise BrokenPipeError

        def flush(self):
            raise BrokenPipeError

    bad = Listener(fails_on=(1,))
    monkeypatch.setattr("sys.stderr", Gone())
    Fanout({"bad": bad}).handle(EVENT)
    assert bad.closed == 1
