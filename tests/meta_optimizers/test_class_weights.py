"""Meta-gradients with class weights, against rows that are there several times."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from metaloss.types import Batch

COUNTS = torch.tensor([1, 3, 2])


def repeated(batch):
    times = COUNTS[batch.targets]
    return Batch(*(values.repeat_interleave(times, 0) for values in batch))


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_weights_are_repetitions_of_rows_in_every_engine(exact, optimizer, case, distance):
    asked = case("mlp", optimizer, 3)
    window = asked.window
    again = window._replace(
        batches=tuple(map(repeated, window.batches)), meta_batch=repeated(window.meta_batch)
    )
    expected = exact.meta_gradient(asked.problem, asked.phi, asked.state, again)
    weighted = replace(asked.problem, class_weights=COUNTS.double())
    found = exact.meta_gradient(weighted, asked.phi, asked.state, window)
    assert distance(found.gradient, expected.gradient) < 1e-9
    unweighted = exact.meta_gradient(asked.problem, asked.phi, asked.state, window)
    assert distance(unweighted.gradient, expected.gradient) > 1e-3, "the weights matter"
    torch.testing.assert_close(found.losses.inner, expected.losses.inner)
    torch.testing.assert_close(found.losses.meta_task, expected.losses.meta_task)


def test_the_task_loss_is_torch_s_weighted_cross_entropy(case):
    problem = replace(case("mlp", "sgd", 1).problem, class_weights=COUNTS.double())
    outputs, targets = torch.randn(9, 3, dtype=torch.float64), torch.tensor([0, 1, 2] * 3)
    targets[0] = -100
    expected = F.cross_entropy(outputs, targets, weight=COUNTS.double())
    torch.testing.assert_close(problem.task_loss_of(outputs, targets), expected)


def test_a_sample_of_rows_is_unbiased_under_class_weights(case):
    problem = replace(case("mlp", "sgd", 1).problem, class_weights=COUNTS.double())
    outputs, targets = torch.randn(4, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 1])
    halves = torch.combinations(torch.arange(4), 2)
    found = [problem.sample_task_loss(outputs[rows], targets, rows) for rows in halves]
    torch.testing.assert_close(torch.stack(found).mean(), problem.task_loss_of(outputs, targets))
