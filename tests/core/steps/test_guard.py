"""What the guard calls a bad step."""

import pytest
import torch

from metaloss.config import GuardMode
from metaloss.core.steps import guard as guards
from metaloss.core.steps.guard import LOSS_LIMIT, MEMORY, UPDATE_LIMIT, WARM_UP, GuardState

CPU = torch.device("cpu")
CONSTANT = 1.0


def check(memory, *, moved=0.01, loss=0.5, others=(), theta=None):
    """Judge a step that moves a θ of norm 1 by ``moved``."""
    old = {"a": torch.tensor([0.6, 0.0]), "b": torch.tensor([0.8])}
    new = {**old, "a": old["a"] + torch.tensor([0.0, moved])}
    return guards.check(
        memory,
        old,
        theta or new,
        losses=torch.tensor(loss).reshape(-1),
        others=list(others),
    )


def warmed(moved=0.01, loss=0.5, steps=WARM_UP):
    memory = GuardState.fresh(CPU, CONSTANT)
    for _ in range(steps):
        ok, memory = check(memory, moved=moved, loss=loss)
        assert ok
    return memory


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("memory", [GuardState.fresh(CPU, CONSTANT), warmed()])
@pytest.mark.parametrize(
    "step",
    [
        {"moved": NAN},
        {"moved": INF},
        {"loss": NAN},
        {"loss": INF},
        {"loss": [0.5, NAN, 0.5]},
        {"others": [torch.zeros(2), torch.tensor([0.0, NAN])]},
        {"others": [torch.tensor(-INF)]},
    ],
)
def test_what_is_not_finite_is_bad(memory, step):
    ok, after = check(memory, **step)
    assert not ok
    assert int(after.bad) == int(memory.bad) + 1
    assert int(after.seen) == int(memory.seen)
    assert torch.equal(after.updates.nan_to_num(-1), memory.updates.nan_to_num(-1))
    assert torch.equal(after.losses.nan_to_num(-1), memory.losses.nan_to_num(-1))


def test_an_update_is_bad_far_above_the_usual_and_large_beside_the_weights():
    memory = warmed(moved=0.01)
    limit = 0.01 * UPDATE_LIMIT
    assert check(memory, moved=0.99 * limit)[0]
    assert not check(memory, moved=1.01 * limit)[0]
    # Large beside a tiny median only: 0.05 of ‖θ‖ = 1.
    assert check(warmed(moved=1e-6), moved=0.05)[0]
    # Before the medians are believed, weights may move.
    assert check(warmed(steps=WARM_UP - 1), moved=5.0)[0]


def test_a_longer_window_may_move_as_far_as_its_steps():
    memory = warmed(moved=0.01)
    far = 2 * 0.01 * UPDATE_LIMIT
    assert not check(memory, moved=far, loss=[0.5])[0]
    assert check(memory, moved=far, loss=[0.5, 0.5, 0.5])[0]


def test_a_task_loss_is_bad_far_above_the_usual_and_above_a_constants():
    for memory in (GuardState.fresh(CPU, CONSTANT), warmed(loss=0.001)):
        assert check(memory, loss=0.99 * LOSS_LIMIT * CONSTANT)[0]
        assert not check(memory, loss=1.01 * LOSS_LIMIT * CONSTANT)[0]
    high = warmed(loss=3.0)
    assert check(high, loss=0.99 * LOSS_LIMIT * 3.0)[0]
    assert not check(high, loss=1.01 * LOSS_LIMIT * 3.0)[0]
    assert not check(high, loss=[0.5, 1.01 * LOSS_LIMIT * 3.0])[0]


def test_the_median_looks_back_on_the_last_good_steps():
    memory = warmed(moved=0.01, steps=MEMORY)
    assert not check(memory, moved=0.5)[0]
    for moved in torch.linspace(0.01, 0.1, MEMORY).tolist():
        _, memory = check(memory, moved=moved)
    assert int(memory.seen) == 2 * MEMORY
    torch.testing.assert_close(
        memory.updates.sort().values, torch.linspace(0.01, 0.1, MEMORY), rtol=1e-4, atol=0
    )
    assert check(memory, moved=0.5)[0]


def test_the_choice_is_made_bit_by_bit():
    new = {"a": torch.tensor([NAN, -0.0]), "n": torch.tensor(3)}
    old = {"a": torch.tensor([1.0, 0.0]), "n": torch.tensor(2)}
    for ok, expected in ((True, new), (False, old)):
        found = guards.choose(torch.tensor(ok), new, old)
        assert torch.equal(found["a"].view(torch.int32), expected["a"].view(torch.int32))
        assert torch.equal(found["n"], expected["n"])
    assert guards.choose(torch.tensor(False), None, None) is None


def test_the_modes_have_these_names():
    assert [mode.name for mode in GuardMode] == ["on", "off", "raise"]
