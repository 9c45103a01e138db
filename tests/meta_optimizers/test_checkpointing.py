"""Fewer states kept on the way: the same meta-gradient to the bit, out of √K of them."""

import math
import weakref
from dataclasses import dataclass, field

import pytest
import torch
from torch.utils import _pytree as pytree

from metaloss.compose import compose
from metaloss.errors import MetalossError
from metaloss.inner.problem import InnerProblem
from metaloss.inner.stacked import StackedProblem, member, stack
from metaloss.meta_optimizers.finite_difference import FiniteDifference
from metaloss.meta_optimizers.mixed import Mixed
from metaloss.meta_optimizers.reverse_unroll import Checkpointing
from metaloss.types import MetaPass, ReplayStep, StoredStep

from .leaves import tensors_of

ENGINES = {"mixed": Mixed, "finite_difference": FiniteDifference}
UNROLLS = [1, 2, 3, 10, 11]


@pytest.fixture(params=ENGINES)
def engines(request):
    """The engine that keeps every state, and the one that keeps few."""
    engine = ENGINES[request.param]
    return engine(), engine(checkpointing=Checkpointing.sqrt)


def changed(asked, kind, **more):
    """Return a question to a problem of another kind with the same functions."""
    one = asked.problem
    parts = {name: getattr(one, name) for name in ("model", "loss", "task_loss", "optimizer")}
    return asked._replace(problem=kind(**parts, **more))


def assert_identical(found, expected):
    assert pytree.tree_structure(found) == pytree.tree_structure(expected)
    found, expected = tensors_of(found), tensors_of(expected)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("unroll", UNROLLS)
@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_answers_are_the_same_to_the_bit(engines, optimizer, unroll, case, distance):
    asked = case("norm_dropout", optimizer, unroll)
    expected, found = (asked.answer(engine) for engine in engines)
    assert distance(found.gradient, expected.gradient) == 0
    assert_identical(tuple(found), tuple(expected))


@pytest.mark.parametrize("model", ["cnn", "foreign", "shared"])
def test_so_are_those_of_other_models(engines, model, case, distance):
    asked = case(model, "adam", 5)
    expected, found = (asked.answer(engine) for engine in engines)
    assert distance(found.gradient, expected.gradient) == 0
    assert_identical(tuple(found), tuple(expected))


@pytest.mark.parametrize("shares", [True, False])
def test_many_members_are_taken_again_together(engines, shares, case, distance):
    one = case("norm_dropout", "adam", 5)
    alone = one.answer(engines[1]).gradient
    scales = (1.0, 0.7, 1.3)
    phi = stack([{name: s * value for name, value in one.phi.items()} for s in scales])
    state = stack([one.state] * len(scales))
    window = one.window if shares else stack([one.window] * len(scales))
    asked = changed(one, StackedProblem, shares_batches=shares)
    asked = asked._replace(phi=phi, state=state, window=window)
    expected, found = (asked.answer(engine) for engine in engines)
    assert distance(found.gradient, expected.gradient) == 0
    assert_identical(tuple(found), tuple(expected))
    assert distance(member(found.gradient, 0), alone) < 1e-9
    assert distance(member(found.gradient, 1), alone) > 1e-4


@pytest.mark.parametrize("unroll", UNROLLS)
def test_steps_with_a_later_meta_step_are_taken_again(engines, unroll, case, distance):
    """A record of a step holds its state, or only what it saw."""
    asked = case("norm_dropout", "adam", unroll)
    problem, phi, window, state = asked.problem, asked.phi, asked.window, asked.state
    records = {engine: [] for engine in engines}
    for index, (batch, key) in enumerate(zip(window.batches, window.keys, strict=True)):
        stepped = problem.step(phi, state, batch, key)
        for engine, kept in records.items():
            taken = StoredStep(state, batch, key, stepped.grads)
            kept.append(taken if engine.keeps(index, unroll) else ReplayStep(batch, key))
        state = stepped.state
    adjoint, _ = problem.task_gradient(state, window.meta_batch, window.meta_key)
    meta_pass = MetaPass(window.meta_batch, window.meta_key, adjoint, state.buffers)
    before = {engine: list(kept) for engine, kept in records.items()}
    expected, found = (
        engine.gradient_back(problem, phi, records[engine], meta_pass) for engine in engines
    )
    assert distance(found, expected) == 0
    assert_identical(found, expected)
    assert all(a is b for e in engines for a, b in zip(records[e], before[e], strict=True))
    counts = [sum(isinstance(one, StoredStep) for one in records[engine]) for engine in engines]
    assert counts[0] == unroll
    assert counts[1] <= 2 * math.ceil(math.sqrt(unroll))


@dataclass(frozen=True, kw_only=True)
class Watched(InnerProblem):
    """Counts inner steps, and how many of the states that they made are alive at once."""

    made: list = field(default_factory=list)
    counts: list = field(default_factory=list)

    def step(self, *arguments):
        stepped = super().step(*arguments)
        self.made.append(weakref.ref(stepped.state.params["0.weight"]))
        self.count()
        return stepped

    def run(self, function, *arguments):
        self.count()
        return super().run(function, *arguments)

    def count(self):
        self.counts.append(sum(one() is not None for one in self.made))


@pytest.mark.parametrize("unroll", [1, 3, 10, 11, 25])
def test_few_states_are_alive_and_few_steps_are_taken_again(engines, unroll, case):
    found = []
    for engine in engines:
        asked = changed(case("norm_dropout", "adam", unroll), Watched)
        asked.answer(engine)
        found.append((max(asked.problem.counts), len(asked.problem.made)))
    root = math.ceil(math.sqrt(unroll))
    every, few = found
    assert every == (unroll, unroll)
    assert few[0] <= min(2 * root + 2, unroll + 1)
    # The last segment, at least, is there already.
    assert few[1] < 2 * unroll


def test_the_choice_is_a_word_of_a_run():
    chosen = compose(["meta_optimizer.checkpointing=sqrt"]).meta_optimizer.options
    assert chosen == Mixed(checkpointing=Checkpointing.sqrt)
    with pytest.raises(MetalossError, match="checkpointing"):
        compose(["meta_optimizer.checkpointing=root"])
