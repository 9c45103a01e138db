"""A learner moves every kind as ``torch.optim`` does, buffers and all, or refuses in one line."""

import copy

import pytest
import torch

import metaloss
from metaloss.errors import MetalossError

from . import answers, oracle
from .answers import ENGINES, INNER
from .every import KINDS
from .kind import Expected, Truth
from .listed import listed

PLAIN = [n for n, k in KINDS.items() if k.truth not in (Truth.own, Truth.agreed)]
DRAWING = [n for n, k in KINDS.items() if k.truth in (Truth.own, Truth.agreed)]
pytestmark = [
    pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning"),
    pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning"),
]


def learner_of(kind, engine, optimizer="sgd", **options):
    """A learner of a kind."""
    return metaloss.Learner(
        kind.model(),
        oracle.learned_loss(),
        task_loss=oracle.task_loss,
        inner=INNER[optimizer],
        meta_optimizer=ENGINES[engine],
        **options,
    )


def engine_of(kind):
    """The first engine that takes a kind with one inner step and with two."""
    able = [e for e in ENGINES if all(kind.expects(k).words()[e] == "right" for k in (1, 2))]
    return able[0] if able else "mixed"


def state_of(model):
    """All values of a model by name, frozen ones and buffers that are not saved as well."""
    return {
        **{name: value.detach() for name, value in model.named_parameters()},
        **dict(model.named_buffers()),
    }


@pytest.mark.parametrize("name", listed(PLAIN))
def test_a_learner_moves_a_model_as_torch_does(name):
    moves_as_torch(name, "sgd")


@pytest.mark.faults
@pytest.mark.parametrize("name", listed(PLAIN))
def test_a_learner_moves_a_model_as_torch_does_under_adam(name):
    moves_as_torch(name, "adam")


LIBRARIES = [n for n, k in KINDS.items() if k.needs]


@pytest.mark.filterwarnings("ignore:The given NumPy array:UserWarning")
@pytest.mark.parametrize("name", listed(LIBRARIES, heavy=lambda kind: False))
def test_mixed_is_right_for_networks_of_libraries(name):
    """What the long form asks of all engines, and twice: here once, of the one that runs use."""
    kind = KINDS[name]
    found = answers.outcome(kind, "mixed", 2)
    assert found.word == "right", found
    if name in PLAIN:
        moves_as_torch(name, "sgd")


def moves_as_torch(name, optimizer):
    """Compare a learner's four steps with those of ``torch.optim``."""
    kind = KINDS[name]
    batches = kind.batches(7)
    if kind.expected is Expected.refused:
        with pytest.raises(MetalossError) as refusal:
            learner_of(kind, "mixed", optimizer).step(batches[0], batches[1])
        assert "\n" not in str(refusal.value)
        return
    learner, plain = learner_of(kind, engine_of(kind), optimizer), kind.plain_model()
    rule = oracle.OPTIMIZERS[optimizer]([p for p in plain.parameters() if p.requires_grad])
    modes = [part.training for part in learner.model.modules()]
    for number, (steps, moves_loss) in enumerate(((1, True), (2, True), (1, False))):
        given, meta = batches[2 * number : 2 * number + steps], batches[-1]
        loss = copy.deepcopy(learner.loss)
        losses = learner.step(given if steps > 1 else given[0], meta if moves_loss else None)
        oracle.walk(plain, loss, given, rule)
        torch.testing.assert_close(state_of(learner.model), state_of(plain), **close(kind))
        if moves_loss:
            measured = oracle.measured_aside(plain, meta)
            torch.testing.assert_close(losses.meta_task, measured, **close(kind))
            now = list(learner.loss.parameters())
            assert any(not torch.equal(a, b) for a, b in zip(now, loss.parameters(), strict=True))
    assert [part.training for part in learner.model.modules()] == modes


def close(kind):
    """How near a learner is to come."""
    if kind.half:  # a weight of 0.1 is rounded by 2e-4
        return {"rtol": kind.tolerance, "atol": 5e-4}
    return {"rtol": kind.tolerance or 1e-9, "atol": 1e-10 if kind.tolerance is None else 1e-6}


@pytest.mark.parametrize("name", listed(DRAWING))
def test_engines_draw_alike(name):
    kind = KINDS[name]
    batches = kind.batches(4)
    ends = []
    for engine in ("mixed", "torchopt", "finite_difference"):
        if kind.expects(2).words()[engine] != "right":
            continue
        learner = learner_of(kind, engine)
        learner.step(batches[0])
        losses = learner.step(batches[1:3], batches[3])
        ends.append((state_of(learner.model), losses))
    start = state_of(kind.model())
    assert len(ends) > 1
    assert any(not torch.equal(start[name], value) for name, value in ends[0][0].items())
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], rtol=1e-10, atol=1e-12)
