"""Many seeds in one program: the numbers that each would have alone, in folders of their own."""

import json
import shutil
import signal
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

import metaloss
from metaloss.compose import read_file
from metaloss.contracts import Plan, Progress
from metaloss.core.parts.setup import prepare
from metaloss.core.runs.run import resume_group
from metaloss.core.runs.stackable import check_stackable
from metaloss.core.steps.move_phi import move_phi
from metaloss.core.steps.stacked import StackedAdvance
from metaloss.core.storage.files import write_json
from metaloss.errors import MetalossError
from metaloss.inner.stacked import member, stack
from metaloss.losses.mlp import MLPLoss, MLPLossConfig

from ..plain_autograd_loop import first_state
from ..same_ending import assert_same_ending
from ..small_setups import blobs, config, fast, net

SEEDS = (0, 1, 2)
STEPS = 20


def double(seed, *words):
    """Return a set-up in float64 whose rows, weights and φ are the seed's own."""
    torch.manual_seed(seed)
    loss = MLPLoss(MLPLossConfig(hidden=[6])).double()
    return prepare(
        replace(config("steps=20", *words), seed=seed),
        task=blobs(seed=seed, dtype=torch.float64),
        model=net(nn.BatchNorm1d(5), nn.Dropout(0.3), seed=seed).double(),
        loss=loss,
    )


def walk(parts, advance, state):
    """Return the state after all the steps of the schedule."""
    progress = Progress()
    while (plan := parts.schedule.plan(progress, STEPS)) is not None:
        state = advance(state, plan, progress)
        progress = progress.after(plan)
    return state


@pytest.mark.parametrize(
    "words",
    [
        ("schedule=static",),
        ("schedule=online", "meta_optimizer.clip=0.1"),
        ("schedule=online", "inner=adam", "meta_optimizer=finite_difference"),
        ("schedule=online", "inner.momentum=0.9", "schedule.unroll=3", "schedule.period=5"),
        ("schedule=online", "schedule.meta_batch=next", "inner.schedule=cosine"),
        ("schedule=offline", "schedule.offline_steps=4", "schedule.unroll=2"),
    ],
    ids=" ".join,
)
def test_a_member_moves_as_it_would_alone(words):
    setups = [double(seed, *words) for seed in SEEDS]
    check_stackable(setups)
    together = walk(
        setups[0],
        StackedAdvance([parts.advance for parts in setups]),
        stack([first_state(parts) for parts in setups]),
    )
    for index, parts in enumerate(setups):
        start = first_state(parts)
        alone = walk(parts, parts.advance, start)
        assert not torch.equal(alone.inner.params["0.weight"], start.inner.params["0.weight"])
        pairs = zip(
            pytree.tree_leaves(alone._replace(pending=None)),
            pytree.tree_leaves(member(together._replace(pending=None), index)),
            strict=True,
        )
        for one, other in pairs:
            torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-12, equal_nan=True)


def test_a_bad_step_of_one_member_is_no_other_members_business():
    setups = [double(seed, "schedule=online") for seed in SEEDS]
    check_stackable(setups)
    rows = setups[1].advance.streams["train"].rows
    rows.inputs.fill_(float("inf"))
    states = walk(
        setups[0],
        StackedAdvance([parts.advance for parts in setups]),
        stack([first_state(parts) for parts in setups]),
    )
    assert states.guard.bad.tolist() == [0, STEPS, 0]
    kept = first_state(setups[1]).inner.params["0.weight"]
    assert torch.equal(states.inner.params["0.weight"][1], kept)


@pytest.mark.parametrize("meta_batch", ["validation", "next"])
def test_a_meta_gradient_that_is_not_finite_does_not_stop_a_member_with_a_frozen_loss(
    monkeypatch, meta_batch
):
    def without_numbers(problem, engine, phi, gradient, *rest):
        gradient = {name: torch.nan * slope for name, slope in gradient.items()}
        return move_phi(problem, engine, phi, gradient, *rest)

    monkeypatch.setattr("metaloss.core.steps.step.move_phi", without_numbers)
    setups = [
        double(seed, "schedule=online", f"schedule.meta_batch={meta_batch}") for seed in (0, 1)
    ]
    first, second = map(first_state, setups)
    stays = first.rule._replace(shrink=torch.zeros_like(first.rule.shrink))
    states = stack([first._replace(rule=stays), second])
    states = walk(setups[0], StackedAdvance([parts.advance for parts in setups]), states)
    alone, progress = first, Progress()
    while progress.train < STEPS:  # as `loop.train` does for a single run
        plan = Plan(phase="train")
        alone = setups[0].advance(alone, plan, progress)
        progress = progress.after(plan)
    assert states.guard.bad[0] == 0
    assert states.guard.bad[1] > 0
    own = member(states, 0)
    for found, wanted in (
        (own.inner.params, alone.inner.params),
        (own.phi, first.phi),
        (own.meter, alone.meter),
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


WORDS = ("task=digits", "task.subset=300", "model.hidden=[8]", "steps=12", "start.steps=10")
EVERY = ("log_every=2", "eval_every=4", "checkpoint_every=3", "tracker=[]")


def journal(run):
    return [
        {name: value for name, value in row.items() if name != "time/seconds"}
        for row in run.journal()
    ]


@pytest.mark.parametrize(
    "words",
    [("schedule=online",), ("schedule=static", "loss=gce", "schedule.early_stopping=1")],
    ids=" ".join,
)
def test_every_seed_has_the_run_that_it_would_have_alone(tmp_path, words):
    words = fast(*WORDS, *EVERY, *words)
    runs = metaloss.train_seeds([*words, "seed=3", "seeds=2", f"output={tmp_path / 'group'}"])
    for seed, run in zip((3, 4), runs, strict=True):
        assert run.folder == tmp_path / "group" / f"seed{seed}"
        alone = metaloss.train([*words, f"seed={seed}", f"output={tmp_path / str(seed)}"])
        assert run.summary.seed == seed
        assert run.summary.steps == alone.summary.steps
        assert len(journal(alone)) == len(journal(run)) >= 4
        for one, other in zip(journal(alone), journal(run), strict=True):
            assert other.pop("phase") == one.pop("phase")
            assert other == pytest.approx(one, rel=1e-3, abs=1e-5)
        written = json.loads((run.folder / "summary.json").read_text())
        assert written["status"] == alone.summary.status


def test_a_group_that_was_stopped_ends_like_one_that_was_not(tmp_path, monkeypatch):
    words = fast(*WORDS, *EVERY, "schedule=online", "seeds=3")
    metaloss.train_seeds([*words, f"output={tmp_path / 'whole'}"])
    taken = []
    step = StackedAdvance.__call__

    def interrupting(self, *arguments):
        taken.append(1)
        # The first is the trial before anything is written.
        if len(taken) == 9:
            signal.raise_signal(signal.SIGINT)
        return step(self, *arguments)

    monkeypatch.setattr(StackedAdvance, "__call__", interrupting)
    with pytest.raises(KeyboardInterrupt, match="--resume"):
        metaloss.train_seeds([*words, f"output={tmp_path / 'run'}"])
    monkeypatch.undo()
    assert not list((tmp_path / "run").glob("*/summary.json"))
    # A checkpoint more in one member, as a kill in the midst of writing them would leave it.
    newest = max((tmp_path / "run/seed1/checkpoints").iterdir())
    newest.unlink()
    resume_group(tmp_path / "run")
    for seed in SEEDS:
        assert_same_ending(tmp_path / "run" / f"seed{seed}", tmp_path / "whole" / f"seed{seed}")


def test_a_stopped_group_goes_on_without_those_that_had_ended_early(tmp_path):
    words = fast(*WORDS, *EVERY, "schedule=static", "loss=gce", "schedule.early_stopping=1")
    words = [*words, "steps=40", "seed=4", "seeds=2", "inner.lr=1"]
    whole = metaloss.train([*words, f"output={tmp_path / 'whole'}"])
    steps = [run.summary.steps for run in whole]
    assert len(set(steps)) > 1, steps
    shutil.copytree(tmp_path / "whole", tmp_path / "run")
    for run in whole:
        folder = tmp_path / "run" / run.folder.name
        (folder / "summary.json").unlink()
        if run.summary.steps > min(steps):  # killed before its end
            max((folder / "checkpoints").iterdir()).unlink()
    metaloss.resume_run(tmp_path / "run")
    for run in whole:
        assert_same_ending(tmp_path / "run" / run.folder.name, run.folder)


def test_train_returns_one_run_or_a_list(tmp_path):
    words = fast("steps=3", "schedule=static", "loss=cross_entropy")
    one = metaloss.train([*words, f"output={tmp_path / 'one'}"], task=blobs(), model=net())
    assert one.folder == tmp_path / "one"
    many = [*words, "seed=4", "seeds=2", f"output={tmp_path / 'many'}"]
    runs = metaloss.train(many, task=blobs(), model=net())
    assert [run.folder.name for run in runs] == ["seed4", "seed5"]
    for run in runs:  # each can go on by itself
        assert read_file(run.folder / "config.yaml")["seeds"] == 1
    alone = metaloss.train_seeds(
        [*words, f"output={tmp_path / 'alone'}"], task=blobs(), model=net()
    )
    assert [run.folder.name for run in alone] == ["alone"]


def test_a_finished_group_can_be_made_longer(tmp_path):
    words = fast("schedule=online", "seeds=2", "log_every=2", "eval_every=6")
    own = {"task": blobs(), "model": net()}
    metaloss.train([*words, "steps=12", f"output={tmp_path / 'whole'}"], **own)
    metaloss.train([*words, "steps=6", f"output={tmp_path / 'run'}"], **own)
    with pytest.raises(MetalossError, match=r"all 2 runs in it are finished, with 6 steps"):
        metaloss.resume_run(tmp_path / "run", **own)
    runs = metaloss.resume_run(tmp_path / "run", steps=12, **own)
    assert [run.summary.steps for run in runs] == [12, 12]
    for seed in (0, 1):
        assert_same_ending(tmp_path / "run" / f"seed{seed}", tmp_path / "whole" / f"seed{seed}")


def test_the_last_of_a_group_goes_on_as_a_run_by_itself(tmp_path):
    words = fast("schedule=online", "seeds=2", "steps=12", "checkpoint_every=4")
    own = {"task": blobs(), "model": net()}
    group = metaloss.train([*words, f"output={tmp_path / 'run'}"], **own)
    before = json.loads((group[1].folder / "summary.json").read_text())
    (group[1].folder / "summary.json").unlink()
    max((group[1].folder / "checkpoints").iterdir()).unlink()
    (again,) = metaloss.resume_run(tmp_path / "run", **own)
    assert again.folder == group[1].folder
    assert again.summary.metrics == pytest.approx(before["metrics"], rel=1e-3, abs=1e-5)
    # One that has diverged is left as it is, as when it is alone.
    write_json(group[0].folder / "summary.json", {**before, "seed": 0, "status": "diverged"})
    (longer,) = metaloss.resume_run(tmp_path / "run", steps=14, **own)
    assert (longer.folder, longer.summary.steps) == (group[1].folder, 14)


def test_no_run_is_written_over(tmp_path):
    (tmp_path / "seed1").mkdir()
    (tmp_path / "seed1/precious").touch()
    with pytest.raises(MetalossError, match="seed1 is not empty"):
        metaloss.train_seeds(fast(*WORDS, "seeds=2", f"output={tmp_path}"))
    assert [path.name for path in tmp_path.iterdir()] == ["seed1"]
