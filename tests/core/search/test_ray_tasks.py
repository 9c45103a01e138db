"""Functions on Ray, with a Ray that is none: what is asked of it, and what its errors become."""

import os
import signal
import threading
from pathlib import Path

import pytest

from metaloss.core.search import ray_tasks
from metaloss.core.search.ray_cluster import require_ray
from metaloss.core.search.ray_tasks import Asked, LostError, Place, StoppedError, Tasks
from metaloss.errors import MetalossError


@pytest.fixture
def tasks(fake_ray):
    opened = Tasks(Asked())
    yield opened
    opened.close()
    assert not fake_ray.connected


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"num_cpus": 0}, r"hydra\.launcher\.num_cpus=0: expected a positive number"),
        ({"num_gpus": -1}, r"hydra\.launcher\.num_gpus=-1: expected a number ≥ 0"),
    ],
)
def test_what_a_task_takes_has_ranges(option, message):
    with pytest.raises(MetalossError, match=message):
        Asked(**option)


def test_without_ray_it_is_said_how_to_install_it(no_ray):
    with pytest.raises(MetalossError, match=r"x=ray needs Ray: pip install 'metaloss\[ray\]'"):
        require_ray("x=ray")


def test_ray_is_asked_for_what_a_task_takes_and_never_tries_again(fake_ray):
    fake_ray.resources = {"CPU": 9.0, "GPU": 2.0}
    tasks = Tasks(Asked(address="auto", num_cpus=2, num_gpus=0.5))
    tasks.close()
    assert fake_ray.options == [{"num_cpus": 2, "num_gpus": 0.5, "max_retries": 0}]
    assert [options["address"] for options in fake_ray.inits] == ["auto"]


@pytest.mark.parametrize(
    ("asked", "room"),
    [({}, 9), ({"num_cpus": 2}, 4), ({"num_gpus": 0.5}, 4), ({"num_cpus": 20}, 1)],
)
def test_room_is_what_fits_at_once(asked, room, fake_ray):
    fake_ray.resources = {"CPU": 9.0, "GPU": 2.0}
    tasks = Tasks(Asked(address="auto", **asked))
    assert tasks.room == room
    tasks.close()


@pytest.mark.parametrize("asked", [{"num_cpus": 5}, {"num_gpus": 1}])
def test_a_machine_that_is_too_small_is_told_and_left(asked, fake_ray):
    with pytest.raises(MetalossError, match=r"each task asks for . .PUs, and Ray has . on this"):
        Tasks(Asked(**asked))
    assert not fake_ray.connected


def test_a_cluster_may_grow(fake_ray, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    Tasks(Asked(num_cpus=5)).close()


def test_ray_that_was_there_before_stays(fake_ray):
    fake_ray.connected = True
    Tasks(Asked()).close()
    assert fake_ray.connected
    assert fake_ray.inits == []


def test_a_call_returns_what_the_function_does(tasks):
    assert tasks.result(tasks.begin(max, 3, 7)) == 7


def test_an_error_of_the_function_is_its_own(tasks):
    with pytest.raises(ValueError, match=r"^invalid literal"):
        tasks.result(tasks.begin(int, "x"))


def test_a_lost_worker_is_said_to_be(tasks, fake_ray):
    fake_ray.lost = {0}
    with pytest.raises(LostError, match=r"^its worker was lost \(WorkerCrashedError\)$"):
        tasks.result(tasks.begin(max, 3, 7))


def test_stop_interrupts_what_has_not_ended_and_begins_nothing_more(tasks, fake_ray):
    tasks.result(tasks.begin(max, 3, 7))
    fake_ray.held = True
    running = [tasks.begin(max, 3, 7) for _ in range(2)]
    tasks.stop()
    assert sorted(fake_ray.cancelled) == [(1, False), (2, False)]
    for reference in running:
        with pytest.raises(StoppedError, match=r"^stopped$"):
            tasks.result(reference)
    with pytest.raises(StoppedError, match=r"^stopped$"):
        tasks.begin(max, 3, 7)


def test_what_does_not_hear_is_ended_by_force(tasks, fake_ray):
    fake_ray.held = fake_ray.deaf = True
    tasks.begin(max, 3, 7)
    tasks.stop()
    assert fake_ray.cancelled == [(0, False), (0, True)]


def test_a_worker_goes_where_the_one_who_asks_is(tmp_path, monkeypatch):
    monkeypatch.setenv("METALOSS_PLUGIN_FILES", "mine.py")
    monkeypatch.chdir(tmp_path)
    place = Place()
    monkeypatch.setenv("METALOSS_PLUGIN_FILES", "")
    monkeypatch.chdir("/")
    place.enter(tmp_path)
    assert Path.cwd() == tmp_path
    assert os.environ["METALOSS_PLUGIN_FILES"] == "mine.py"


def test_a_worker_that_ignores_ctrl_c_hears_it_again(tmp_path, monkeypatch):
    assert threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        Place().enter(tmp_path)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_node_that_does_not_share_the_files_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(ray_tasks.socket, "gethostname", lambda: "node7")
    with pytest.raises(MetalossError, match="gone is not on the node node7: the nodes of a Ray "):
        Place().enter(tmp_path / "gone")
