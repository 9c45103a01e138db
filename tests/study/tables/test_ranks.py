import math

import numpy as np
import pytest
from scipy.stats import friedmanchisquare

from metaloss.errors import MetalossError
from metaloss.study.tables.ranks import alike, average_ranks, critical_difference

# Demšar 2006, table 6: AUC of four variants of C4.5 on fourteen data sets. (A fourth digit in
# "voting" breaks the tie that rounding made: the paper ranks it.)
VARIANTS = ("C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf")
AUC = [
    (0.763, 0.768, 0.771, 0.798),
    (0.599, 0.591, 0.590, 0.569),
    (0.954, 0.971, 0.968, 0.967),
    (0.628, 0.661, 0.654, 0.657),
    (0.882, 0.888, 0.886, 0.898),
    (0.936, 0.931, 0.916, 0.931),
    (0.661, 0.668, 0.609, 0.685),
    (0.583, 0.583, 0.563, 0.625),
    (0.775, 0.838, 0.866, 0.875),
    (1.000, 1.000, 1.000, 1.000),
    (0.940, 0.962, 0.965, 0.962),
    (0.619, 0.666, 0.614, 0.669),
    (0.972, 0.981, 0.9751, 0.975),
    (0.957, 0.978, 0.946, 0.970),
]


@pytest.fixture
def demsar(block):
    return {
        str(index): block({row: [value] for row, value in zip(VARIANTS, aucs, strict=True)},
                          goal="max")
        for index, aucs in enumerate(AUC)
    }  # fmt: skip


@pytest.fixture
def blocks(block):
    def make(values, **options):
        return {
            f"b{index}": block({row: [mean] for row, mean in rows.items()}, **options)
            for index, rows in enumerate(values)
        }

    return make


# Table 5(a) of the paper, α = 0.05 and α = 0.10.
@pytest.mark.parametrize(
    ("k", "alpha", "q"),
    [
        (2, 0.05, 1.960), (3, 0.05, 2.343), (5, 0.05, 2.728), (10, 0.05, 3.164),
        (2, 0.10, 1.645), (10, 0.10, 2.920),
    ],
)  # fmt: skip
def test_critical_values_are_those_of_the_paper(k, alpha, q):
    n = 7
    found = critical_difference(k, n, alpha=alpha) / math.sqrt(k * (k + 1) / (6 * n))
    # The paper divides tabulated quantiles of three decimals.
    assert found == pytest.approx(q, abs=1e-3)


@pytest.mark.parametrize(("k", "n", "alpha"), [(1, 5, 0.05), (2, 0, 0.05), (2, 5, 1.0)])
def test_critical_differences_have_ranges(k, n, alpha):
    with pytest.raises(MetalossError, match=f"got {k} rows, {n} blocks"):
        critical_difference(k, n, alpha=alpha)


def test_ranks_are_those_of_the_paper(demsar):
    found = average_ranks(demsar)
    expected = {"C4.5+m+cf": 1.964, "C4.5+m": 2.000, "C4.5+cf": 2.893, "C4.5": 3.143}
    assert list(found.means) == list(expected), "the best first"
    assert found.means == pytest.approx(expected, abs=5e-4)
    assert found.critical == pytest.approx(1.25, abs=5e-3)
    assert len(found.blocks) == 14


def test_friedmans_test_is_scipys(demsar):
    found = average_ranks(demsar)
    expected = friedmanchisquare(*np.array(AUC).T)
    assert expected.pvalue < 0.05
    assert (found.statistic, found.p) == pytest.approx((expected.statistic, expected.pvalue))


def test_friedmans_statistic_without_ties_is_the_closed_form(blocks):
    values = [{"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 3, "c": 2}, {"a": 1, "b": 2, "c": 3}]
    found = average_ranks(blocks(values))
    means = [1, 7 / 3, 8 / 3]
    assert list(found.means.values()) == pytest.approx(means)
    assert found.statistic == pytest.approx(12 * 3 / (3 * 4) * (sum(r**2 for r in means) - 12))


def test_ties_share_their_ranks_and_float_noise_breaks_none(blocks):
    values = [{"a": 0.1, "b": 0.1 + 1e-9, "c": 0.3}, {"a": 0.3, "b": 0.2, "c": 0.1}]
    assert average_ranks(blocks(values)).means == {"b": 1.75, "c": 2.0, "a": 2.25}


def test_more_is_better_where_the_goal_says_so(blocks):
    values = [{"a": 0.1, "b": 0.2}] * 2
    assert average_ranks(blocks(values)).means == {"a": 1, "b": 2}
    assert average_ranks(blocks(values, goal="max")).means == {"b": 1, "a": 2}


@pytest.mark.parametrize("goal", ["min", "max"])
def test_rows_without_a_number_share_the_last_ranks(blocks, goal):
    values = [{"a": math.nan, "b": -5.0, "c": math.inf, "d": -5.0}] * 2
    assert average_ranks(blocks(values, goal=goal)).means == {
        "b": 1.5, "d": 1.5, "a": 3.5, "c": 3.5,
    }  # fmt: skip


def test_only_the_most_blocks_with_the_same_rows_count(blocks):
    values = [
        {"a": 1, "b": 2, "c": 3},
        {"a": 2, "b": 1},
        {"c": 3, "b": 2, "a": 1},
        {"a": 3, "c": 1},
    ]
    found = average_ranks(blocks(values))
    assert found.blocks == ("b0", "b2")
    assert found.means == {"a": 1, "b": 2, "c": 3}


def test_rows_aside_do_not_compete(blocks):
    values = [{"a": 1, "b": 3, "x": 2}, {"a": 1, "b": 3}]
    assert average_ranks(blocks(values, aside=["x"])).means == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    "values", [[{"a": 1}] * 3, [{"a": 1, "b": 2}], [{"a": 1, "b": 2}, {"a": 1}], []]
)
def test_nothing_to_rank(blocks, values):
    assert average_ranks(blocks(values)) is None


@pytest.mark.parametrize("values", [[{"a": 1, "b": 2}] * 3, [{"a": 1, "b": 1, "c": 1}] * 3])
def test_without_three_rows_or_any_difference_there_is_no_test(blocks, values):
    found = average_ranks(blocks(values))
    assert (found.statistic, found.p) == (None, None)


@pytest.mark.parametrize(
    ("critical", "spans"),
    [
        (0.5, []),
        (1.0, [(0, 1), (1, 2)]),
        (2.0, [(0, 2)]),
        (2.5, [(0, 2), (2, 3)]),
        (9.0, [(0, 3)]),
    ],
)
def test_spans_that_are_alike(critical, spans):
    assert alike([1.0, 2.0, 3.0, 5.5], critical) == spans
