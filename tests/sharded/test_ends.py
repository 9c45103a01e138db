"""A process that has left the others keeps no thread that could abort it when Python ends."""

import sys

import pytest

from .processes import together

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads are looked up in /proc")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Return what each of two processes saw."""
    folder = tmp_path_factory.mktemp("ends")
    cases = ("ends.in_peace", "ends.in_error", "ends.of_the_users_own")
    return together(folder, *cases, anew=True)


@pytest.mark.parametrize("case", ["in_peace", "in_error", "of_the_users_own"])
def test_no_thread_of_the_group_outlives_it(case, found):
    for rank in found:
        assert rank[f"ends.{case}"]["during"]
        assert rank[f"ends.{case}"]["after"] == []


def test_of_an_error_both_say_the_same(found):
    said = [rank["ends.in_error"]["said"] for rank in found]
    assert said == ["rank 1 ended: boom", "boom"]
