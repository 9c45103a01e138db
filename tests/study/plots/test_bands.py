import numpy as np
import pytest

from metaloss.core.storage.run_folder import JournalRow, RunFolder
from metaloss.study.plots.comparison_plot import band, edges
from metaloss.study.plots.loss_plot import pick


def run(steps, values, final):
    rows = [
        JournalRow(step=10 + step, phase="train", phase_step=step, numbers={"test/error": value})
        for step, value in zip(steps, values, strict=True)
    ]
    return RunFolder(
        path=None, config={}, journal=tuple(rows), curves=(), link=None, notes=(),
        summary={"metrics": {"test/error": final}},
    )  # fmt: skip


def test_band_is_mean_and_sample_deviation_over_seeds():
    steps = [0, 100, 200]
    first, second = [0.9, 0.5, 0.3], [0.8, 0.3, 0.2]
    found = band([run(steps, first, 0.3), run(steps, second, 0.2)], "test/error")
    np.testing.assert_allclose(found.mean, np.mean([first, second], 0), rtol=1e-12)
    np.testing.assert_allclose(found.std, np.std([first, second], 0, ddof=1), rtol=1e-12)
    assert (found.end, found.final) == (200, 0.25)


def test_a_run_that_ended_sooner_counts_with_its_final_metric():
    # It stopped at step 100 and went back to weights with 0.1.
    runs = [run([0, 100], [0.9, 0.5], 0.1), run([0, 100, 200], [0.9, 0.3, 0.3], 0.3)]
    found = band(runs, "test/error")
    np.testing.assert_allclose(found.mean, [0.9, 0.4, 0.2], rtol=1e-12)


def test_runs_evaluated_at_different_steps_are_interpolated():
    runs = [run([0, 200], [1.0, 0.0], 0.0), run([0, 100, 200], [1.0, 0.5, 0.0], 0.0)]
    found = band(runs, "test/error")
    np.testing.assert_allclose(found.mean, [1.0, 0.5, 0.0], atol=1e-12)
    np.testing.assert_allclose(found.std, 0, atol=1e-12)


def test_a_row_without_numbers_has_no_band():
    assert band([run([], [], None)], "test/error") is None
    nothing = run([0, 100], [np.nan, np.nan], None)
    assert band([nothing], "test/error") is None


@pytest.mark.parametrize(("count", "most"), [(1, 7), (7, 7), (8, 7), (1000, 7), (3, 1)])
def test_pick_keeps_both_ends(count, most):
    picked = pick(count, most)
    assert len(picked) == min(count, most)
    assert picked[0] == 0
    assert most == 1 or picked[-1] == count - 1


def test_a_band_on_a_logarithmic_axis_is_as_wide_on_both_sides():
    mean, std = np.array([0.1, 0.2]), np.array([0.3, 0.02])
    low, high = edges(mean, std, logarithmic=True)
    np.testing.assert_allclose(high, [0.4, 0.22])
    np.testing.assert_allclose(mean / low, high / mean)
    np.testing.assert_allclose(edges(mean, std, logarithmic=False)[0], [-0.2, 0.18])
