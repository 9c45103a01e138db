import numpy as np
import pytest

from metaloss.core.storage.run_folder import JournalRow, RunFolder
from metaloss.study.plots.comparison_plot import band
from metaloss.study.plots.loss_plot import pick
from metaloss.study.plots.style import MOST_POINTS, spread, thin
from metaloss.study.tables.table import Group


def run(steps, values, final):
    rows = [
        JournalRow(step=10 + step, phase="train", phase_step=step, numbers={"test/error": value})
        for step, value in zip(steps, values, strict=True)
    ]
    return RunFolder(
        path=None, config={}, journal=tuple(rows), curves=(), link=None, notes=(),
        summary={"metrics": {"test/error": final}},
    )  # fmt: skip


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


def test_band_is_mean_and_sample_deviation_over_seeds():
    steps = [0, 100, 200]
    first, second = [0.9, 0.5, 0.3], [0.8, 0.3, 0.2]
    group = Group(
        name="a", static=True, runs={0: run(steps, first, 0.3), 1: run(steps, second, 0.2)}
    )
    found = band(group, "test/error")
    np.testing.assert_allclose(found.mean, np.mean([first, second], 0), rtol=1e-12)
    np.testing.assert_allclose(found.std, np.std([first, second], 0, ddof=1), rtol=1e-12)
    assert (found.end, found.final) == (200, 0.25)


def test_a_run_that_ended_sooner_counts_with_its_final_metric():
    # It stopped at step 100 and went back to weights with 0.1.
    runs = {0: run([0, 100], [0.9, 0.5], 0.1), 1: run([0, 100, 200], [0.9, 0.3, 0.3], 0.3)}
    found = band(Group(name="a", static=True, runs=runs), "test/error")
    np.testing.assert_allclose(found.mean, [0.9, 0.4, 0.2], rtol=1e-12)


def test_runs_evaluated_at_different_steps_are_interpolated():
    runs = {0: run([0, 200], [1.0, 0.0], 0.0), 1: run([0, 100, 200], [1.0, 0.5, 0.0], 0.0)}
    found = band(Group(name="a", static=True, runs=runs), "test/error")
    np.testing.assert_allclose(found.mean, [1.0, 0.5, 0.0], atol=1e-12)
    np.testing.assert_allclose(found.std, 0, atol=1e-12)


def test_a_row_without_numbers_has_no_band():
    assert band(Group(name="a", static=True, runs={0: run([], [], None)}), "test/error") is None
    nothing = run([0, 100], [np.nan, np.nan], None)
    assert band(Group(name="a", static=True, runs={0: nothing}), "test/error") is None


@pytest.mark.parametrize(("count", "most"), [(1, 7), (7, 7), (8, 7), (1000, 7), (3, 1)])
def test_pick_keeps_both_ends(count, most):
    picked = pick(count, most)
    assert len(picked) == min(count, most)
    assert picked[0] == 0
    assert most == 1 or picked[-1] == count - 1


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
