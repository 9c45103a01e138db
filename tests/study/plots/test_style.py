import numpy as np
import pytest

from metaloss.study.plots.style import MOST_POINTS, spread, thin


def test_short_series_stay_as_they_are():
    steps, values = np.arange(50.0), np.arange(50.0) ** 2
    assert thin(steps, values)[1] is values


def test_long_series_are_means_over_neighbours():
    steps = np.arange(100_000.0)
    few, means = thin(steps, 3 * steps)
    assert len(few) == MOST_POINTS
    assert (few[0], few[-1]) == (0, 99_999)
    assert np.all(np.diff(few) > 0)
    np.testing.assert_allclose(means, 3 * few, rtol=1e-12)


def test_thinning_skips_what_is_not_a_number():
    values = np.ones(10_000)
    values[5000:6000:2] = np.nan
    assert np.isfinite(thin(np.arange(10_000.0), values)[1]).all()


@pytest.mark.parametrize("seed", range(20))
def test_labels_never_overlap_and_stay_inside(seed):
    draws = np.random.default_rng(seed)
    sizes = draws.uniform(5, 20, size=8)
    wanted = draws.uniform(0, 60, size=8)
    placed = spread(wanted, sizes, top=200.0)
    order = np.argsort(placed)
    low, high = (placed - sizes / 2)[order], (placed + sizes / 2)[order]
    assert np.all(high[:-1] <= low[1:] + 1e-9)
    assert low[0] >= -1e-9
    assert high[-1] <= 200 + 1e-9
    assert np.all(np.diff(wanted[order]) >= 0), "labels keep the order of their lines"


def test_labels_with_room_stay_where_they_are():
    wanted = np.array([10.0, 50.0, 90.0])
    np.testing.assert_array_equal(spread(wanted, np.full(3, 10.0), top=100.0), wanted)
