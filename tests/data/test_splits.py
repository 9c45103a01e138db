import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaloss.data.splits import choose, part_of, split_rows
from metaloss.errors import MetalossError

LABELS = st.lists(st.integers(0, 4), min_size=20, max_size=120).map(np.array)
FRACTION = st.floats(0.05, 0.45)


@settings(max_examples=100, deadline=None)
@given(
    labels=LABELS, valid=FRACTION, test=FRACTION, seed=st.integers(0, 2**32), strata=st.booleans()
)
def test_every_row_is_in_exactly_one_part_of_the_exact_size(labels, valid, test, seed, strata):
    rng = np.random.default_rng(seed)
    split = split_rows(len(labels), valid, test, rng, strata=labels if strata else None)
    assert sorted(np.concatenate(split)) == list(range(len(labels)))
    assert len(split.valid) == round(valid * len(labels))
    assert len(split.test) == round(test * len(labels))


@settings(max_examples=100, deadline=None)
@given(labels=LABELS, valid=FRACTION, test=FRACTION, seed=st.integers(0, 2**32))
def test_every_part_holds_its_share_of_every_class(labels, valid, test, seed):
    split = split_rows(len(labels), valid, test, np.random.default_rng(seed), strata=labels)
    all_counts = np.bincount(labels, minlength=5)

    def distance(part):
        share = len(part) / len(labels)
        return np.abs(np.bincount(labels[part], minlength=5) - share * all_counts).max()

    assert distance(split.test) < 1
    assert distance(split.valid) < 2
    assert distance(split.train) < 2


def test_the_seed_decides_the_split():
    def split(seed):
        return np.concatenate(split_rows(200, 0.2, 0.2, np.random.default_rng(seed)))

    assert (split(0) == split(0)).all()
    assert (split(0) != split(1)).any()


def test_every_row_is_tested_equally_often():
    draws = 2000
    counts = np.zeros(40)
    for seed in range(draws):
        counts[split_rows(40, 0.2, 0.25, np.random.default_rng(seed)).test] += 1
    deviation = np.sqrt(draws * 0.25 * 0.75)
    assert np.abs(counts - draws / 4).max() < 4.5 * deviation


def test_no_test_part_on_demand():
    split = split_rows(10, 0.3, 0, np.random.default_rng(0))
    assert [len(part) for part in split] == [7, 3, 0]


@pytest.mark.parametrize(
    ("rows", "valid", "test", "missing"),
    [(3, 0.15, 0.25, "valid"), (2, 0.1, 0.1, "valid and test"), (4, 0.5, 0.5, "train")],
)
def test_a_part_without_rows_is_an_error(rows, valid, test, missing):
    with pytest.raises(MetalossError, match=rf"^{rows} rows, .*: no rows left for {missing}$"):
        split_rows(rows, valid, test, np.random.default_rng(0))


@given(labels=LABELS, share=st.floats(0, 1), seed=st.integers(0, 2**32))
def test_choosing_keeps_the_classes_in_proportion(labels, share, seed):
    rows = np.arange(len(labels)) + 1000
    count = int(share * len(rows))
    picked = choose(rows, count, np.random.default_rng(seed), strata=labels)
    assert len(set(picked)) == count
    assert set(picked) <= set(rows)
    expected = np.bincount(labels, minlength=5) * count / len(rows)
    assert np.abs(np.bincount(labels[picked - 1000], minlength=5) - expected).max() < 1


@given(labels=LABELS, parts=st.integers(2, 6), seed=st.integers(0, 2**32))
def test_parts_share_out_the_rows_of_every_class(labels, parts, seed):
    rows = np.arange(len(labels)) + 1000
    parts = min(parts, len(rows))
    found = [
        part_of(rows, parts, k, np.random.default_rng(seed), strata=labels) for k in range(parts)
    ]
    assert sorted(np.concatenate(found)) == list(rows)
    for part in found:
        expected = np.bincount(labels, minlength=5) / parts
        assert np.abs(np.bincount(labels[part - 1000], minlength=5) - expected).max() < 1
