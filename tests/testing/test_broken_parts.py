import pytest

from metaloss.testing import LossChecks, ModelChecks, SearchChecks, TrackerChecks
from metaloss.testing.base import Checks, given, run, run_check
from metaloss.testing.check import SUITES

from . import (
    broken_decisions,
    broken_losses,
    broken_models,
    broken_optimizers,
    broken_searches,
    broken_tasks,
)
from .specimens import SPECIMENS

MODULES = [
    broken_decisions,
    broken_losses,
    broken_models,
    broken_optimizers,
    broken_searches,
    broken_tasks,
]


def checks_of(suite):
    return {name for name in dir(suite) if name.startswith("test_")}


def test_every_check_has_a_broken_part_that_it_catches():
    shared = checks_of(Checks)
    caught = {(specimen.suite, specimen.check) for specimen in SPECIMENS}
    every = {(suite, check) for suite in SUITES.values() for check in checks_of(suite) - shared}
    assert len(every) > 40
    assert every - caught == set()
    # What all suites share is shown once, on losses.
    assert {(LossChecks, check) for check in shared} <= caught


@pytest.mark.parametrize("specimen", SPECIMENS, ids=lambda s: f"{s.make.__name__}-{s.check}")
def test_a_broken_part_fails_its_check(specimen):
    result = run_check(given(specimen.suite, specimen.make), specimen.check)
    assert not result.passed
    assert specimen.words in result.message


@pytest.mark.parametrize(
    ("suite", "make"),
    [
        (LossChecks, broken_losses.Broken),
        (ModelChecks, broken_models.Plain),
        (TrackerChecks, broken_models.Listener),
        (SearchChecks, broken_searches.Sound),
    ],
)
def test_what_the_specimens_are_made_from_is_sound(suite, make):
    failed = {result.name for result in run(given(suite, make)) if not result.passed}
    # A class in a test file is not registered.
    assert failed <= {"an export comes back equal"}


def test_results_say_in_one_line_what_is_wrong():
    class Stranger(broken_models.Listener):
        def handle(self, event):
            raise ValueError("many\nlines")

    results = run(given(TrackerChecks, Stranger), label="here")
    failed = [result for result in results if not result.passed]
    assert failed[0].name == "every event is taken in order [here]"
    assert failed[0].message == "ValueError: many lines"
