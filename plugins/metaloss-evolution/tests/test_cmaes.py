"""CMA-ES: that it finds a minimum, draws from its seed alone, and can be told again."""

import random

import numpy as np
import pytest
import torch
from metaloss_evolution import CMAES
from metaloss_evolution.cmaes import Centre

from metaloss.errors import MetalossError
from metaloss.losses import CrossEntropy, MLPLoss, Taylor
from metaloss.testing import SearchChecks


class TestContract(SearchChecks):
    def make(self):
        return CMAES(population=4)


def loss():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Taylor()


def vector(candidate):
    return torch.cat([value.reshape(-1) for value in candidate.phi.values()]).double()


def generations(search, count, fitness):
    found = []
    for _ in range(count):
        candidates = search.ask()
        found.append(torch.stack([vector(one) for one in candidates]))
        search.tell([fitness(row) for row in found[-1]])
    return found


def to_the_aim(row):
    aim = torch.linspace(-2, 2, len(row), dtype=row.dtype)
    return float(((row - aim) ** 2).sum())


def test_it_finds_the_minimum_of_a_quadratic():
    search = CMAES(population=12).search(loss(), None, 10, seed=0)
    found = generations(search, 80, to_the_aim)
    assert min(to_the_aim(row) for row in found[0]) > 0.5
    assert min(to_the_aim(row) for row in found[-1]) < 1e-6


def test_a_new_search_that_is_told_the_same_asks_the_same():
    one, two = (CMAES(population=6).search(loss(), None, 10, seed=0) for _ in range(2))
    first, second = (generations(search, 5, to_the_aim) for search in (one, two))
    assert torch.equal(torch.stack(first), torch.stack(second))
    other = generations(CMAES(population=6).search(loss(), None, 10, seed=1), 1, to_the_aim)
    assert not torch.equal(other[0], first[0])


def test_seed_0_is_a_seed_and_nobodys_generator_is_touched():
    # cma would draw from this one: that it does not is what is looked at.
    np_before, before, torch_before = (
        np.random.get_state(),  # noqa: NPY002
        random.getstate(),
        torch.get_rng_state(),
    )
    drawn = [
        generations(CMAES(population=4).search(loss(), None, 10, seed=0), 2, to_the_aim)
        for _ in range(2)
    ]
    assert torch.equal(drawn[0][1], drawn[1][1])
    np_after = np.random.get_state()  # noqa: NPY002
    assert all(np.array_equal(a, b) for a, b in zip(np_before, np_after, strict=True))
    assert random.getstate() == before
    assert torch.equal(torch.get_rng_state(), torch_before)


def test_candidates_that_do_not_train_count_as_the_worst():
    def ranked(bad):
        search = CMAES(population=6).search(loss(), None, 10, seed=0)
        search.ask()
        search.tell([1.0, 2.0, bad, 3.0, 4.0, bad])
        return torch.stack([vector(one) for one in search.ask()])

    assert torch.equal(ranked(float("inf")), ranked(5.0))
    assert not torch.equal(ranked(float("inf")), ranked(0.0))


def test_a_generation_in_which_nothing_trains_changes_nothing():
    search = CMAES(population=4).search(loss(), None, 10, seed=0)
    search.ask()
    search.tell([float("inf")] * 4)
    generations(search, 3, to_the_aim)


def test_the_first_generation_lies_around_the_centre():
    for centre, middle in ((Centre.zero, 0.0), (Centre.start, None)):
        options = CMAES(population=400, sigma=0.5, centre=centre)
        rows = torch.stack([vector(one) for one in options.search(loss(), None, 10, seed=0).ask()])
        aim = torch.zeros(8).double()
        if middle is None:
            aim = torch.cat([value.detach().reshape(-1) for value in loss().parameters()]).double()
        assert (rows.mean(0) - aim).abs().max() < 0.1
        assert (rows.std(0) - 0.5).abs().max() < 0.1


@pytest.mark.parametrize("wrong", [CrossEntropy(), MLPLoss()])
def test_a_loss_with_too_few_or_too_many_parameters_is_refused(wrong):
    with pytest.raises(MetalossError, match="parameters: expected 2 to 1000; use"):
        CMAES().search(wrong, None, 10, seed=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": 0.0}, "sigma=0.0: expected a positive"),
        ({"population": 1}, "expected a number ≥ 2"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(MetalossError, match=message):
        CMAES(**options)
