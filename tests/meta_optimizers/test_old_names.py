"""Engines that use the older names of the update rule work for one version, with a notice."""

import importlib

import pytest
import torch

from metaloss.meta_optimizers import engine, outer
from metaloss.meta_optimizers.mixed import Mixed
from metaloss.types import MetaPass

PHI, SLOPE = {"w": torch.tensor(1.0)}, {"w": torch.tensor(2.0)}
PLAIN = Mixed(rule=engine.Rule.sgd, lr=0.25)
WHEN = {"phase": "train", "total": 10}


@pytest.mark.parametrize(("old", "new"), [("OuterRule", engine.Engine), ("Rule", engine.Rule)])
def test_classes_are_found_where_they_were(old, new):
    with pytest.warns(FutureWarning, match=rf"outer.{old} is now called .*engine.{new.__name__};"):
        assert getattr(outer, old) is new


def test_an_engine_may_override_the_old_methods():
    with pytest.warns(FutureWarning, match=r"Halved.outer_step is now called rule_step"):

        class Halved(Mixed):
            def outer_step(self, phi, gradient, state, *, phase, total):
                half = {name: value / 2 for name, value in gradient.items()}
                return super().outer_step(phi, half, state, phase=phase, total=total)

    halved = Halved(rule=engine.Rule.sgd, lr=0.25)
    with pytest.warns(FutureWarning):
        found, _ = halved.rule_step(PHI, SLOPE, halved.rule_init(PHI), **WHEN)
    assert found == {"w": torch.tensor(0.75)}


def test_the_old_methods_can_be_called():
    with pytest.warns(FutureWarning, match="outer_init is now called rule_init"):
        state = PLAIN.outer_init(PHI)
    with pytest.warns(FutureWarning, match="outer_step is now called rule_step"):
        found, _ = PLAIN.outer_step(PHI, SLOPE, state, **WHEN)
    assert found == {"w": torch.tensor(0.5)} == PLAIN.rule_step(PHI, SLOPE, state, **WHEN)[0]


def test_what_engines_call_has_its_old_names_too(case):
    asked = case(torch.nn.Linear(6, 3), "sgd", 1)
    given = (asked.state, asked.window.meta_batch, asked.window.meta_key)
    with pytest.warns(FutureWarning, match="judge is now called task_gradient"):
        old = asked.problem.judge(*given)
    new = asked.problem.task_gradient(*given)
    assert torch.equal(old[1], new[1])
    assert all(torch.equal(old[0][name], new[0][name]) for name in new[0])
    with pytest.warns(FutureWarning, match="Judgement is now called MetaPass"):
        assert importlib.import_module("metaloss.types").Judgement is MetaPass
