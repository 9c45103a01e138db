"""An engine is a pure function: it leaves everything that it was given, and everything else."""

import copy
import gc
import random

import numpy as np
import pytest
import torch

from metaloss.meta_optimizers.finite_difference import FiniteDifference

from .leaves import tensors_of


def snapshot(asked):
    tensors = tensors_of((asked.phi, asked.state, tuple(asked.window)))
    modules = [asked.module, asked.problem.loss]
    return {
        "values": [tensor.clone() for tensor in tensors],
        "flags": [(t.requires_grad, t.grad, t._version) for t in tensors],
        "weights": [copy.deepcopy(module.state_dict()) for module in modules],
        "owned": [(p.requires_grad, p.grad) for m in modules for p in m.parameters()],
        "training": [part.training for m in modules for part in m.modules()],
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": np.random.get_state()[1],  # noqa: NPY002 - the global state is the subject
    }


def assert_unchanged(before, after) -> None:
    for name in ("flags", "owned", "training", "python"):
        assert before[name] == after[name], name
    for name in ("values", "weights", "torch", "numpy"):
        old, new = tensors_of(before[name]), tensors_of(after[name])
        assert all(np.array_equal(a, b) for a, b in zip(old, new, strict=True)), name


@pytest.mark.parametrize("model", ["norm_dropout", "foreign", "partial", "shared"])
@pytest.mark.parametrize("unroll", [1, 3])
def test_nothing_given_is_changed(exact, model, unroll, case):
    asked = case(model, "adam", unroll)
    before = snapshot(asked)
    asked.answer(exact)
    assert_unchanged(before, snapshot(asked))


@pytest.mark.parametrize("unroll", [1, 3])
def test_finite_difference_changes_nothing_either(unroll, case):
    asked = case("norm_dropout", "adam", unroll)
    before = snapshot(asked)
    asked.answer(FiniteDifference())
    assert_unchanged(before, snapshot(asked))


def test_results_carry_no_graph(exact, case):
    asked = case("norm_dropout", "rmsprop_all", 3)
    result = asked.answer(exact)
    assert not any(leaf.requires_grad for leaf in tensors_of(tuple(result)))


def test_grad_mode_of_the_caller_does_not_matter(exact, case):
    asked = case("norm_dropout", "adam", 2)
    with torch.no_grad():
        silent = asked.answer(exact).gradient
    assert all(torch.equal(silent[n], v) for n, v in asked.answer(exact).gradient.items())


def test_the_graph_is_freed_without_the_collector(exact, case):
    """What an unroll held is gone when the answer is: memory does not wait for a collection."""
    asked = case("norm_dropout", "adam", 3)
    asked.answer(exact)

    def alive() -> int:
        things = gc.get_objects()
        return sum(thing.numel() for thing in things if issubclass(type(thing), torch.Tensor))

    gc.collect()
    gc.disable()
    try:
        before = alive()
        for _ in range(5):
            asked.answer(exact)
        assert alive() <= before
    finally:
        gc.enable()
