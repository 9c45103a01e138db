"""Candidates trained together against candidates trained alone, and against torch itself."""

import math
from dataclasses import replace

import pytest
import torch
from torch.func import functional_call
from torch.nn import functional as F

from metaloss.config import Selected
from metaloss.core.parts.setup import prepare
from metaloss.core.search import population
from metaloss.core.search.groups import evaluate_group
from metaloss.core.search.population import evaluate
from metaloss.losses import Taylor
from metaloss.losses.taylor import TaylorConfig
from metaloss.meta_optimizers.search import FitnessOf

from ..random_search import Draws, phi
from ..small_setups import blobs, config, net

ORDERS = (2, 3, 3, 2, 3)


def setup(goal="min", **options):
    """Return a run in float64 whose loss is searched for."""
    rule = Draws(population=5, fitness_steps=12, early_end=0.0, **options)
    words = config("loss=taylor", "schedule=offline", "inner.lr=0.1")
    words = replace(words, meta_optimizer=Selected(name="draws", options=rule))
    task = replace(blobs(dtype=torch.float64), goal=goal)
    return prepare(words, task=task, model=net().double())


def candidates():
    losses = [Taylor(TaylorConfig(order=order)).double() for order in ORDERS]
    phis = [phi(order, 0, number, torch.float64) for number, order in enumerate(ORDERS)]
    return losses, phis


def together(parts, losses, phis):
    return evaluate(parts, parts.search, losses, phis)


@pytest.mark.parametrize("local_steps", [0, 3])
@pytest.mark.parametrize("engine", ["mixed", "finite_difference"])
def test_together_equals_one_after_the_other(local_steps, engine):
    parts = setup(fitness=FitnessOf.task_loss, local_steps=local_steps, local_engine=engine)
    losses, phis = candidates()
    bulk = together(parts, losses, phis)
    alone = [together(parts, [loss], [own])[0] for loss, own in zip(losses, phis, strict=True)]
    assert len({one.fitness for one in bulk}) == len(ORDERS)
    for one, other in zip(bulk, alone, strict=True):
        assert one.fitness == pytest.approx(other.fitness, rel=1e-9)
        torch.testing.assert_close(one.phi, other.phi, rtol=1e-9, atol=1e-12)


def test_losses_of_one_structure_are_trained_as_those_of_many():
    parts = setup(fitness=FitnessOf.task_loss)
    losses = [Taylor(TaylorConfig(order=3)).double() for _ in range(4)]
    phis = [phi(3, 0, number, torch.float64) for number in range(4)]
    other, own = Taylor(TaylorConfig(order=2)).double(), phi(2, 0, 9, torch.float64)
    alike = together(parts, losses, phis)
    mixed = together(parts, [*losses, other], [*phis, own])
    for one, same in zip(alike, mixed, strict=False):
        assert one.fitness == pytest.approx(same.fitness, rel=1e-9)


def test_fitness_is_what_plain_torch_trains_to():
    parts = setup()
    (loss, *_), (own, *_) = candidates()
    (found,) = together(parts, [loss], [own])
    state = parts.advance.fresh("search", 0)
    leaves = {name: value.clone().requires_grad_() for name, value in state.params.items()}
    optimizer = torch.optim.SGD(leaves.values(), lr=0.1)
    module = net().double()
    for number in range(12):
        batch = parts.advance.streams["offline"][number]
        optimizer.zero_grad()
        outputs = functional_call(module, leaves, (batch.inputs,))
        functional_call(loss, own, (outputs, batch.targets)).backward()
        optimizer.step()
    valid = parts.task.valid
    with torch.no_grad():
        right = functional_call(module, leaves, (valid.inputs,)).argmax(1) == valid.targets
    assert found.fitness == pytest.approx(1 - right.double().mean().item(), abs=1e-6)
    assert 0 < found.fitness < 0.6


def test_a_metric_that_should_grow_is_turned_round():
    (loss, *_), (own, *_) = candidates()
    low, high = (together(setup(goal), [loss], [own])[0].fitness for goal in ("min", "max"))
    assert high == -low != 0


def test_the_local_search_is_the_offline_phase():
    parts = setup(local_steps=4, local_lr=0.01)
    losses, phis = candidates()
    found = together(parts, losses, phis)[1].phi
    words = ("loss=taylor", "schedule=offline", "schedule.offline_steps=4", "schedule.unroll=1")
    words += (
        "meta_optimizer.offline_lr=0.01",
        "guard=off",
        "start=keep",
        "inner.lr=0.1",
        "steps=1",
    )
    loss = losses[1]
    with torch.no_grad():
        for name, value in loss.named_parameters():
            value.copy_(phis[1][name])
    run = prepare(config(*words), task=parts.task, model=net().double(), loss=loss)
    from metaloss.contracts import Progress

    state = run.state(run.advance.fresh("train", 0), phis[1])
    for number in range(4):
        progress = Progress(offline=number)
        plan = run.schedule.plan(progress, 1)
        state = run.advance(state, plan, progress)
    assert (state.phi["coefficients"] - phis[1]["coefficients"]).abs().max() > 1e-2
    torch.testing.assert_close(found, state.phi, rtol=1e-9, atol=1e-12)


def test_the_hopeless_end_early_and_leave_the_others_as_they_are(monkeypatch):
    monkeypatch.setattr(population, "FEWEST_STEPS", 6)
    parts = setup(fitness=FitnessOf.task_loss)
    early = replace(parts, search=replace(parts.search, early_end=0.5))
    losses, phis = candidates()
    broken = {name: value.clone() for name, value in phis[1].items()}
    broken["centre"][0] = math.nan
    # Uphill: further from the targets with every step.
    wrong = {**phis[2], "coefficients": -20 * phis[2]["coefficients"]}
    found = together(early, losses, [phis[0], broken, wrong, *phis[3:]])
    assert found[1].ended == "not finite after 6 steps"
    assert found[2].ended == "no better than a constant prediction after 6 steps"
    assert found[1].fitness == found[2].fitness == math.inf
    whole = together(parts, losses, phis)
    for index in (0, 3, 4):
        assert found[index].ended is None
        assert found[index].fitness == pytest.approx(whole[index].fitness, rel=1e-9)


def test_after_a_few_steps_nobody_is_hopeless_who_is_finite():
    early = setup(fitness=FitnessOf.task_loss)
    early = replace(early, search=replace(early.search, early_end=0.5))
    losses, phis = candidates()
    wrong = {**phis[2], "coefficients": -20 * phis[2]["coefficients"]}
    found = together(early, losses, [*phis[:2], wrong, *phis[3:]])
    assert [one.ended for one in found] == [None] * 5
    assert found[2].fitness == max(one.fitness for one in found) < math.inf


def test_a_job_leaves_the_number_of_threads_as_it_was():
    parts = setup()
    before = torch.get_num_threads()
    (found,) = evaluate_group(parts, (({"order": 2}, None),))
    assert math.isfinite(found.fitness)
    assert torch.get_num_threads() == before


def test_cross_entropy_is_beaten_by_no_candidate_that_climbs():
    """A sanity check of the direction: a loss downhill of the task loss has the better fitness."""
    parts = setup(fitness=FitnessOf.task_loss)
    losses, phis = candidates()
    good = together(parts, losses[:1], phis[:1])[0].fitness
    uphill = {**phis[0], "coefficients": -phis[0]["coefficients"]}
    assert (
        together(parts, losses[:1], [uphill])[0].fitness
        > F.cross_entropy(torch.zeros(1, 3), torch.tensor([0])).item()
        > good
    )
