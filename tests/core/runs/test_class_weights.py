"""Runs whose rows count by their class, against plain PyTorch."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

import metaloss
from metaloss.contracts import Plan, Progress
from metaloss.core.storage.run_folder import read_run
from metaloss.core.training.made_of import compare, made_of
from metaloss.errors import MetalossError

from ..small_setups import blobs, fast, net, setup, train

WEIGHTS = (1.0, 4.0, 0.5)
OWN = replace(blobs(), class_weights=WEIGHTS)


def last(run, name):
    return read_run(run.folder).series(name)[1][-1]


def test_training_steps_are_those_of_torch_s_weighted_cross_entropy():
    asked = setup("schedule=static", "loss=cross_entropy", "inner.lr=0.3", task=OWN)
    inner = asked.advance.fresh("train", 0)
    module = copy.deepcopy(asked.model)
    module.load_state_dict(inner.params)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.3)
    state, progress, plan = asked.state(inner, {}), Progress(), Plan(phase="train")
    for number in range(5):
        batch = asked.advance.streams["train"][number]
        optimizer.zero_grad()
        F.cross_entropy(
            module(batch.inputs), batch.targets, weight=torch.tensor(WEIGHTS)
        ).backward()
        optimizer.step()
        state, progress = asked.advance(state, plan, progress), progress.after(plan)
    for name, value in module.named_parameters():
        torch.testing.assert_close(state.inner.params[name], value.detach())


def test_a_run_reports_the_weighted_task_loss(tmp_path):
    run = train(tmp_path / "run", "schedule=online", "steps=20", "inner.lr=0.1", task=OWN)
    outputs = run.model.eval()(OWN.test.inputs)
    expected = F.cross_entropy(outputs, OWN.test.targets, weight=torch.tensor(WEIGHTS))
    assert last(run, "test/task_loss") == pytest.approx(expected.item(), rel=1e-5)
    plain = train(tmp_path / "plain", "schedule=online", "steps=20", "inner.lr=0.1")
    assert last(run, "train/task_loss") != last(plain, "train/task_loss")


def test_a_run_is_kept_to_its_class_weights():
    own = setup("schedule=online", task=OWN)
    assert compare("run", own, made_of(own), None) == []
    for other in (blobs(), replace(OWN, class_weights=(1.0, 1.0, 2.0))):
        with pytest.raises(MetalossError, match=r"the task is not the one .* its class weights"):
            compare("run", setup("schedule=online", task=other), made_of(own), None)


def test_seeds_trained_together_have_the_numbers_of_single_runs(tmp_path):
    words = fast("schedule=online", "steps=10", "inner.lr=0.1", "seeds=2")
    both = metaloss.train_seeds([*words, f"output={tmp_path / 'both'}"], task=OWN, model=net())
    for seed, run in enumerate(both):
        alone = train(
            tmp_path / f"{seed}", "schedule=online", "steps=10", "inner.lr=0.1", f"seed={seed}",
            task=OWN,
        )  # fmt: skip
        assert last(run, "test/task_loss") == pytest.approx(last(alone, "test/task_loss"), rel=1e-4)
