"""Any files for trusted, test and new rows: finite inputs, or an error of one line."""

import json
import warnings

import pytest
from hypothesis import given, settings

from metaloss.data.csv_task import CSV
from metaloss.data.files import DataWarning
from metaloss.data.pipeline import pipeline_from_dict
from metaloss.errors import MetalossError

from .test_csv_tasks import OPTIONS, few, garbage, many, tables


def attempt(make, *arguments):
    """Return what is made, None where it is refused in one line."""
    refused = None
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            made = make(*arguments)
        except MetalossError as refusal:
            refused = str(refusal)
    if refused is not None:
        assert "\n" not in refused
        return None
    assert {message.category for message in said} <= {DataWarning}
    return made


def check_files(folder, first, second, options):
    """Build tasks of two files, and predict both; return how often that could be done."""
    one, two = folder / "one.csv", folder / "two.csv"
    one.write_bytes(first)
    two.write_bytes(second)
    options = {name: value for name, value in options.items() if name != "imbalance"}
    done = 0
    for files in ({"trusted": str(two)}, {"test": str(two)}, {}):
        source = CSV(path=str(one), **files, **{"target": "y", **options})
        task = attempt(source.build, 0)
        if task is None:
            continue
        for part in (task.train, task.valid, task.test):
            assert part.inputs.isfinite().all()
        stored = pipeline_from_dict(json.loads(json.dumps(task.pipeline.to_dict())))
        for path in (one, two):
            made = attempt(stored.read, path)
            if made is not None:
                again, places = attempt(task.pipeline.read, path)
                assert made[0].isfinite().all()
                assert (made[0] == again).all()
                assert len(places["line"]) == len(again)
                done += 1
    return done


@settings(few, max_examples=20)
@given(first=tables(), second=tables() | garbage, options=OPTIONS)
def test_no_files_end_in_a_traceback(tmp_path_factory, first, second, options):
    check_files(tmp_path_factory.getbasetemp(), first, second, options)


@pytest.mark.faults
@many
@given(first=tables(), second=tables() | garbage, options=OPTIONS)
def test_many_files_never_end_in_a_traceback(tmp_path_factory, first, second, options):
    check_files(tmp_path_factory.getbasetemp(), first, second, options)


def test_the_drawn_files_can_be_predicted(tmp_path):
    rows = [f"{row % 9},{row * 7 % 5},{'ab'[row % 2]}" for row in range(60)]
    content = "\n".join(["c0,c1,y", *rows]).encode()
    assert check_files(tmp_path, content, content, {}) == 6
