"""What crosses processes has the derivatives of what does not."""

import pytest
import torch

from .processes import run, together

EXACT = ("maps.crossing", "maps.norm_1d", "maps.norm_2d", "maps.norm_plain")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Return what each of three processes found."""
    folder = tmp_path_factory.mktemp("maps")
    return together(folder, *EXACT, "maps.norm_far", size=3)


@pytest.mark.parametrize("case", EXACT)
def test_derivatives_across_processes_are_those_of_one(case, found, tmp_path):
    expected = run(case, tmp_path)
    for rank in found:
        assert rank[case].keys() == expected.keys()
        for name, value in expected.items():
            assert value.abs().max() > 1e-3, name
            torch.testing.assert_close(rank[case][name], value, rtol=1e-9, atol=1e-10)


def test_statistics_lose_no_digits_where_the_mean_is_large(found, tmp_path):
    expected = run("maps.norm_far", tmp_path)
    for name, value in expected.items():
        torch.testing.assert_close(found[0]["maps.norm_far"][name], value, rtol=2e-3, atol=1e-3)


def test_every_process_holds_the_same_bits(found):
    for case in EXACT:
        for name, value in found[0][case].items():
            assert torch.equal(found[1][case][name], value), (case, name)
            assert torch.equal(found[2][case][name], value), (case, name)
