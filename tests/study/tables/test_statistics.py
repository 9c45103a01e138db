import itertools
import math

import numpy as np
import pytest
from scipy import stats

from metaloss.errors import MetalossError
from metaloss.study.tables.statistics import MeanStd, holm, paired_wilcoxon


def enumerated(first, second):
    """The exact p by writing down every sign pattern: the slow path."""
    difference = np.round(np.asarray(first) - np.asarray(second), 6)
    ranks = stats.rankdata(np.abs(difference))
    ranks = ranks[difference != 0]
    signs = np.sign(difference[difference != 0])
    observed = ranks[signs > 0].sum()
    sums = [
        sum(r for r, positive in zip(ranks, pattern, strict=True) if positive)
        for pattern in itertools.product([False, True], repeat=len(ranks))
    ]
    low = np.mean([s <= observed + 1e-9 for s in sums])
    high = np.mean([s >= observed - 1e-9 for s in sums])
    return min(1.0, 2 * min(low, high))


def test_mean_and_sample_deviation_against_numpy():
    values = np.random.default_rng(0).normal(3, 2, size=7)
    found = MeanStd.of(values.tolist())
    assert found.mean == pytest.approx(values.mean(), rel=1e-12)
    assert found.std == pytest.approx(values.std(ddof=1), rel=1e-12)
    assert found.n == 7


def test_mean_leaves_out_what_is_not_finite_and_counts_the_rest():
    assert MeanStd.of([1.0, math.nan, 3.0, math.inf]) == MeanStd.of([1.0, 3.0])
    assert MeanStd.of([math.nan]) is None
    assert MeanStd.of([2.0]) == MeanStd(mean=2.0, std=None, n=1)


@pytest.mark.parametrize("n", [6, 7, 10])
def test_wilcoxon_equals_scipys_exact_test_without_ties(n):
    draws = np.random.default_rng(n)
    first, second = draws.normal(0.3, 1, n), draws.normal(0, 1, n)
    expected = stats.wilcoxon(first, second, method="exact").pvalue
    assert paired_wilcoxon(first, second) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_wilcoxon_equals_enumeration_with_ties_and_zeros(seed):
    draws = np.random.default_rng(seed)
    first = draws.integers(0, 5, 9) / 100
    second = draws.integers(0, 4, 9) / 100
    difference = np.round(first - second, 6)
    assert len(set(np.abs(difference))) < 9, "the case must have ties"
    assert paired_wilcoxon(first, second) == pytest.approx(enumerated(first, second), rel=1e-12)


def test_wilcoxon_is_not_misled_by_rounding_noise():
    # 0.3 − 0.2 and 0.2 − 0.1 differ in the last bits, and so would their ranks.
    first, second = (
        np.array([0.3, 0.2, 0.4, 0.1, 0.6, 0.5]),
        np.array([0.2, 0.1, 0.3, 0.2, 0.4, 0.5]),
    )
    assert len(set(np.abs(first - second))) > 3
    assert paired_wilcoxon(first, second) == pytest.approx(enumerated(first, second), rel=1e-12)


def test_wilcoxon_of_equal_values_says_nothing():
    assert paired_wilcoxon([0.1] * 6, [0.1] * 6) == 1.0


def test_wilcoxon_is_symmetric_and_reaches_its_smallest_value():
    first, second = np.arange(1.0, 9.0), np.zeros(8)
    assert paired_wilcoxon(first, second) == paired_wilcoxon(second, first) == 2 / 2**8


def test_wilcoxon_below_six_pairs_is_no_test():
    assert paired_wilcoxon([1, 2, 3, 4, 5], [0, 0, 0, 0, 0]) is None


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [([1, 2], [1], "expected pairs"), ([1, math.nan], [1, 2], "must be finite")],
)
def test_wilcoxon_refuses(first, second, said):
    with pytest.raises(MetalossError, match=said):
        paired_wilcoxon(first, second)


def test_wilcoxon_many_pairs_stays_exact_enough():
    draws = np.random.default_rng(3)
    first, second = draws.normal(0.1, 1, 200), draws.normal(0, 1, 200)
    expected = stats.wilcoxon(first, second, method="asymptotic").pvalue
    assert paired_wilcoxon(first, second) == pytest.approx(expected, rel=0.02)


def test_holm_against_its_definition():
    ps = [0.04, 0.001, 0.03, 0.5, 0.012]
    ordered = sorted(ps)
    for p, corrected in zip(ps, holm(ps), strict=True):
        place = ordered.index(p)
        steps = [min(1.0, (len(ps) - i) * ordered[i]) for i in range(place + 1)]
        assert corrected == pytest.approx(max(steps), rel=1e-15)


def test_holm_counts_only_what_was_tested():
    assert holm([None, 0.02, None]) == [None, 0.02, None]
    assert holm([]) == []
