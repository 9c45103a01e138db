import shutil

import pytest

from metaloss.study.compare import compare
from metaloss.study.spec.spec import Block, Row, Study

ONLINE = ("task=digits", "schedule=online", "loss=mlp", "steps=400", "tracker=[]")
EVENT = {"step": 2200, "reason": "3 bad steps", "action": "restore"}
EVIL = "a </script><script>window.evil = 1</script> row"

STUDY = Study(
    description="Two blocks",
    rows=(
        Row(name="cross-entropy", overrides=("schedule=static", "loss=cross_entropy")),
        Row(name="gce", overrides=("schedule=static", "loss=gce")),
        Row(name=EVIL, overrides=("schedule=online", "loss=mlp")),
    ),
    blocks=(Block(name="clean"), Block(name="noisy", overrides=("task.label_noise=0.4",))),
    seeds=(0, 1, 2),
    common=("task=digits", "steps=400", "tracker=[]"),
)


@pytest.fixture
def run(tmp_path, runs):
    folder = tmp_path / "run"
    runs.write_run(folder, ONLINE, runs.Shape(events=(EVENT,)))
    return folder


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    return tmp_path_factory.mktemp("once") / "study"


@pytest.fixture
def study(once, tmp_path, runs, made_up_runs):
    """A study of two blocks and three rows, one of which has HTML in its name."""
    if not once.exists():
        compare(
            STUDY, once, train=lambda words, folder, resume: runs.write_run(folder, words) and "ok"
        )
    return shutil.copytree(once, tmp_path / "study")
