"""Every engine on every kind: the right number, or one line that names an engine that has it."""

import copy

import pytest
import torch

from . import oracle
from .answers import answer, outcome, reference
from .every import KINDS
from .kind import ENGINES, Expected, Truth
from .listed import listed

LIGHT = [name for name, kind in KINDS.items() if not kind.heavy]
pytestmark = [
    pytest.mark.filterwarnings("ignore:The given NumPy array:UserWarning"),
    pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning"),
    pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning"),
]


@pytest.mark.parametrize("name", listed(KINDS))
def test_engines_are_right_or_refuse(name):
    held(name, "sgd")


@pytest.mark.faults
@pytest.mark.parametrize("name", listed(KINDS))
def test_engines_are_right_or_refuse_under_adam(name):
    held(name, "adam")


def held(name, optimizer):
    """Hold all engines, with one inner step and with two, against what is expected."""
    kind = KINDS[name]
    for steps in (1, 2):
        seen = {engine: outcome(kind, engine, steps, optimizer) for engine in ENGINES}
        words = {engine: found.word for engine, found in seen.items()}
        assert words == kind.expects(steps, optimizer).words(), (steps, seen)
        for engine, found in seen.items():
            if found.word == "refused" and kind.expects(steps, optimizer) is not Expected.refused:
                assert found.named(), f"{engine} names no engine that will do: {found.detail}"
                wrong = [other for other in found.named() if words[other] != "right"]
                assert not wrong, f"{engine} names {wrong}: {found.detail}"


UNROLLED = [
    name
    for name, k in KINDS.items()
    if k.truth is Truth.unroll and k.smooth and k.expected is not Expected.refused
]
FEW = [name for name in UNROLLED if not KINDS[name].heavy][::12]


@pytest.mark.parametrize("name", listed(UNROLLED, heavy=lambda kind: kind.name not in FEW))
def test_the_two_references_agree(name):
    kind = KINDS[name]
    for steps in (1, 2):
        *pairs, meta = kind.batches(steps + 1)
        loss = oracle.learned_loss()
        slopes = oracle.differences(kind.plain_model, loss, pairs, meta, 2)
        gradient = reference(kind, steps).gradient
        graph = torch.stack([oracle.along(gradient, d) for d in oracle.directions(loss, 2)])
        assert slopes.norm() > 0
        assert float((slopes - graph).norm() / slopes.norm()) < 1e-5


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", [n for n in LIGHT if KINDS[n].expected is Expected.exact][::16])
def test_nothing_of_the_users_is_changed(name, engine):
    kind = KINDS[name]
    model, loss, batches = kind.model(), oracle.learned_loss(), kind.batches(2)
    before = copy.deepcopy((model.state_dict(), loss.state_dict(), batches))
    modes = [part.training for part in model.modules()]
    random_state = torch.get_rng_state()
    given = answer(kind, engine, 1, model=model, loss=loss, batches=batches)
    after = (model.state_dict(), loss.state_dict(), batches)
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert [part.training for part in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(p.grad is None for p in (*model.parameters(), *loss.parameters()))
    assert any(value.any() for value in given.values())
