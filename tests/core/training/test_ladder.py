"""The rungs of the ladder: in which order, and when."""

import pytest

from metaloss.core.training.ladder import Ladder, learned_nothing

NAN = float("nan")


def ladder(**given):
    return Ladder(learns=given.pop("learns", True), good=None, start=None, **given)


def rungs(one, phi_moves):
    found = []
    for moves in phi_moves:
        found.append(one.next_rung(phi_moves=moves))
        one.events.append({"action": found[-1]})
    return found


def test_the_rungs_are_taken_in_order_and_once():
    assert rungs(ladder(), [True] * 4) == ["restore", "imitate", "give up", "give up"]


def test_a_frozen_loss_is_not_slowed_down_but_restarted():
    assert rungs(ladder(), [False, True, True]) == ["imitate", "give up", "give up"]
    assert rungs(ladder(), [True, False, False]) == ["restore", "imitate", "give up"]


def test_a_static_run_is_given_up_at_once():
    assert rungs(ladder(learns=False), [False]) == ["give up"]


@pytest.mark.parametrize(
    ("metric", "constant", "goal", "nothing"),
    [
        (0.66, 0.66, "min", True),
        (0.65, 0.66, "min", True),
        (0.60, 0.66, "min", False),
        (0.90, 0.66, "min", True),
        (NAN, 0.66, "min", True),
        (0.33, 0.33, "max", True),
        (0.34, 0.33, "max", False),
        (0.10, 0.33, "max", True),
        (NAN, 0.33, "max", True),
        (-1.0, -1.0, "max", True),
        (-0.9, -1.0, "max", False),
    ],
)
def test_a_model_no_better_than_a_constant_has_learned_nothing(metric, constant, goal, nothing):
    assert learned_nothing(metric, constant, goal) is nothing


def test_a_model_is_given_a_quarter_of_training_after_every_rung():
    def due(done, **given):
        return ladder(**given).is_due(done, 100)

    assert not due(24)
    assert due(25)
    assert not due(64, since=40)
    assert due(65, since=40)
    assert not due(99, since=90)
    assert due(100, since=90), "at the end there is nothing to wait for"
    assert not due(100, learns=False), "a static run may be as bad as it likes"
