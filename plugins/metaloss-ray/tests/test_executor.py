"""What is asked of Ray, and what its errors become."""

import os
import signal
import socket
from pathlib import Path

import pytest

pytest.importorskip("ray")

from metaloss_ray import Ray
from metaloss_ray.cluster import knock
from metaloss_ray.worker import Place

from metaloss.core.execution.executor import LostError, StoppedError
from metaloss.errors import MetalossError


@pytest.fixture
def executor(fake_ray):
    with Ray().open() as opened:
        yield opened
    assert not fake_ray.connected


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"num_cpus": 0}, r"hydra\.launcher\.num_cpus=0: expected a positive number"),
        ({"num_gpus": -1}, r"hydra\.launcher\.num_gpus=-1: expected a number ≥ 0"),
    ],
)
def test_what_a_call_takes_has_ranges(option, message):
    with pytest.raises(MetalossError, match=message):
        Ray(**option)


@pytest.mark.parametrize(
    ("options", "given", "cpus", "calls"),
    [
        ({}, {}, 1.0, 0),
        ({"num_cpus": 2}, {}, 2, 0),
        ({}, {"threads": 3, "keep": False}, 3.0, 1),
        ({"num_cpus": 0.5}, {"threads": 3}, 0.5, 0),
    ],
)
def test_ray_is_asked_for_what_a_call_takes_and_never_tries_again(
    options, given, cpus, calls, fake_ray
):
    fake_ray.resources = {"CPU": 9.0, "GPU": 2.0}
    with Ray(address="auto", num_gpus=0.5, **options).open(**given):
        assert [asked["address"] for asked in fake_ray.inits] == ["auto"]
    assert fake_ray.options == [
        {"num_cpus": cpus, "num_gpus": 0.5, "max_retries": 0, "max_calls": calls}
    ]


@pytest.mark.parametrize(
    ("asked", "room"),
    [({}, 9), ({"num_cpus": 2}, 4), ({"num_gpus": 0.5}, 4), ({"num_cpus": 20}, 1)],
)
def test_room_is_what_fits_at_once(asked, room, fake_ray):
    fake_ray.resources = {"CPU": 9.0, "GPU": 2.0}
    with Ray(address="auto", **asked).open() as executor:
        assert executor.room == room


@pytest.mark.parametrize("asked", [{"num_cpus": 5}, {"num_gpus": 1}])
def test_a_machine_that_is_too_small_is_told_and_left(asked, fake_ray):
    with pytest.raises(MetalossError, match=r"each task asks for . .PUs, and Ray has . on this"):
        Ray(**asked).open()
    assert not fake_ray.connected


def test_a_cluster_may_grow(fake_ray, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with Ray(num_cpus=5).open() as executor:
        assert executor.room == 1


def test_ray_that_was_there_before_stays(fake_ray):
    fake_ray.connected = True
    with Ray().open():
        pass
    assert fake_ray.connected
    assert fake_ray.inits == []


def test_a_call_returns_what_the_function_does(executor):
    assert executor.submit(max, 3, 7).result(0) == 7


def test_an_error_of_the_function_is_its_own(executor):
    with pytest.raises(ValueError, match=r"^invalid literal") as caught:
        executor.submit(int, "x").result(0)
    assert type(caught.value) is ValueError


def test_a_lost_worker_is_said_to_be(executor, fake_ray):
    fake_ray.lost = {0}
    with pytest.raises(LostError, match=r"^its worker was lost \(WorkerCrashedError\)$"):
        executor.submit(max, 3, 7).result(0)


def test_stop_interrupts_what_has_not_ended_and_begins_nothing_more(executor, fake_ray):
    executor.submit(max, 3, 7).result(0)
    fake_ray.held = True
    running = [executor.submit(max, 3, 7) for _ in range(2)]
    executor.stop()
    assert sorted(fake_ray.cancelled) == [(1, False), (2, False)]
    for future in running:
        with pytest.raises(StoppedError, match=r"^stopped$"):
            future.result(0)
    with pytest.raises(StoppedError, match=r"^stopped$"):
        executor.submit(max, 3, 7)


def test_what_does_not_hear_is_ended_by_force(executor, fake_ray):
    fake_ray.held = fake_ray.deaf = True
    executor.submit(max, 3, 7)
    executor.stop()
    assert fake_ray.cancelled == [(0, False), (0, True)]


def test_a_worker_goes_where_the_one_who_asks_is(tmp_path, monkeypatch):
    monkeypatch.setenv("METALOSS_PLUGIN_FILES", "mine.py")
    monkeypatch.chdir(tmp_path)
    place = Place()
    monkeypatch.setenv("METALOSS_PLUGIN_FILES", "")
    monkeypatch.chdir("/")
    place.enter()
    assert Path.cwd() == tmp_path
    assert os.environ["METALOSS_PLUGIN_FILES"] == "mine.py"


def test_a_worker_that_ignores_ctrl_c_hears_it_again():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        Place().enter()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_cluster_is_knocked_at_before_ray_tries_for_minutes():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}", None, "auto"):
            knock(address)
    with pytest.raises(OSError, match="refused"):
        knock(f"127.0.0.1:{port}")


def test_an_address_where_nobody_answers_is_one_line():
    with pytest.raises(MetalossError, match=r"^address=127\.0\.0\.1:1: no Ray cluster answers"):
        Ray(address="127.0.0.1:1").open()
