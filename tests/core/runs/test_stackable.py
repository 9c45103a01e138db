"""Which runs can be one program; what hinders the others is said."""

import pytest
import torch
from torch import nn

import metaloss
from metaloss.compose import compose
from metaloss.core.parts.setup import prepare
from metaloss.core.runs.stackable import _telling
from metaloss.errors import UnsupportedError

from ..small_setups import blobs, config, fast, net


def test_engines_that_take_one_run_at_a_time_say_so(tmp_path):
    words = fast(
        "task=digits",
        "task.subset=300",
        "steps=12",
        "schedule=online",
        "meta_optimizer=higher",
        "seeds=2",
    )
    with pytest.raises(UnsupportedError, match="meta_optimizer=higher supports one run at a time"):
        metaloss.train_seeds([*words, f"output={tmp_path / 'run'}"])
    assert not (tmp_path / "run").exists()


def test_models_with_randomness_of_their_own_are_refused(tmp_path):
    class Noisy(nn.Module):
        def forward(self, x):
            return x + torch.randn_like(x)

    words = fast("seeds=2", "steps=4", f"output={tmp_path / 'run'}")
    with pytest.raises(UnsupportedError, match="random numbers outside"):
        metaloss.train_seeds(words, task=blobs(), model=net(Noisy()))
    assert not (tmp_path / "run").exists()


def test_models_that_cannot_be_vectorised_are_refused(tmp_path):
    class Branching(nn.Module):
        def forward(self, x):
            return x * 2 if x.sum() > 0 else x

    words = fast("seeds=2", "steps=4", f"output={tmp_path / 'run'}")
    with pytest.raises(UnsupportedError, match="not every operation can be vectorised"):
        metaloss.train_seeds(words, task=blobs(), model=net(Branching()))
    assert not (tmp_path / "run").exists()


class Backwards(torch.autograd.Function):
    """An operation without forward mode, which only the moves of φ need."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x * 2

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, grad):
        return grad * 2


def test_seeds_go_together_where_forward_mode_is_missing(tmp_path):
    class Doubling(nn.Module):
        def forward(self, x):
            return Backwards.apply(x)

    class Twice(nn.Module):
        def forward(self, x):
            return x * 2

    found = []
    for name, kind in (("backwards", Doubling), ("plain", Twice)):
        words = fast("seeds=2", "steps=7", "schedule.period=3", f"output={tmp_path / name}")
        runs = metaloss.train_seeds(words, task=blobs(), model=net(kind()))
        found.append([dict(run.loss.named_parameters()) for run in runs])
    for one, other in zip(*found, strict=True):
        for name, value in one.items():
            torch.testing.assert_close(value, other[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("schedule=static",), [("train", 0, False)]),
        (("schedule=online",), [("train", 0, True), ("train", 1, True)]),
        (("schedule.period=3",), [("train", 0, False), ("train", 2, True), ("train", 3, False)]),
        (
            ("schedule=offline", "schedule.offline_steps=5"),
            [("offline", 0, True), ("offline", 1, True)],
        ),
        (
            ("schedule.offline_steps=5", "schedule.unroll=2"),
            [("offline", 0, True), ("offline", 1, True), ("train", 0, True), ("train", 2, True)],
        ),
    ],
)
def test_every_kind_of_step_is_tried(words, expected):
    words = words if "schedule=" in words[0] else ("schedule=online", *words)
    parts = prepare(config(*words, "steps=9"), task=blobs(), model=net())
    found = [(p.phase, at.steps_in(p.phase), p.meta_step) for p, at in _telling(parts)]
    assert found == expected


def test_rows_of_different_shapes_are_refused(tmp_path):
    lines = [f"{i % 9},{'ab'[i % 2] if i % 10 else f'rare {i % 30}'},{i % 2}" for i in range(60)]
    (tmp_path / "table.csv").write_text("\n".join(["x,word,y", *lines]))
    words = fast(
        "task=csv",
        f"task.path={tmp_path / 'table.csv'}",
        "task.target=y",
        "steps=2",
        "schedule=static",
        "loss=cross_entropy",
        f"output={tmp_path / 'run'}",
    )
    shapes = {prepare(compose([*words, f"seed={seed}"])).task.input_shape for seed in range(8)}
    assert len(shapes) > 1
    with pytest.raises(UnsupportedError, match=r"differ in number, .*task\.split_seed=0 gives all"):
        metaloss.train_seeds([*words, "seeds=8"])
    assert not (tmp_path / "run").exists()
    assert len(metaloss.train_seeds([*words, "seeds=2", "task.split_seed=0"])) == 2
