import numpy as np
import pytest
from scipy import stats

from metaloss.data.corruptions import (
    NoiseKind,
    add_input_noise,
    add_outliers,
    flip_labels,
    long_tail,
)
from metaloss.errors import MetalossError


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.333, 0.5, 0.95])
def test_exactly_the_share_of_labels_is_wrong(share):
    labels = rng(1).integers(0, 7, 1001)
    noisy = flip_labels(labels, share, 7, rng())
    assert (noisy != labels).sum() == round(share * 1001)
    assert set(noisy) <= set(range(7))


def test_wrong_labels_are_uniform_over_the_other_classes():
    labels = np.full(9000, 3)
    noisy = flip_labels(labels, 0.999, 10, rng())
    counts = np.delete(np.bincount(noisy, minlength=10), 3)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_corruptions_change_no_argument():
    labels, targets = np.arange(10) % 3, np.zeros((10, 1))
    flip_labels(labels, 0.5, 3, rng())
    add_outliers(targets, 0.5, 5.0, rng())
    assert (labels == np.arange(10) % 3).all()
    assert (targets == 0).all()


def test_outliers_hit_the_share_and_have_the_size():
    targets = rng(1).normal(size=(8000, 1))
    added = (add_outliers(targets, 0.25, 5.0, rng()) - targets)[:, 0]
    hit = added[added != 0]
    assert len(hit) == 2000
    assert stats.kstest(hit / 5.0, "norm").pvalue > 1e-3


def test_the_long_tail_follows_the_exponential_profile():
    labels = rng(1).permutation(np.repeat(np.arange(10), 500))
    kept = long_tail(labels, 50, 10, rng())
    counts = np.bincount(labels[kept], minlength=10)
    assert counts.tolist() == [round(500 * 50 ** (-c / 9)) for c in range(10)]
    assert counts[0] == 50 * counts[9]
    assert len(set(kept)) == len(kept)


def test_the_long_tail_needs_no_more_rows_than_there_are():
    labels = np.repeat([0, 1, 2], [30, 100, 100])
    counts = np.bincount(labels[long_tail(labels, 4, 3, rng())])
    assert counts.tolist() == [30, 15, 8]
    labels = np.repeat([0, 1, 2], [100, 100, 5])
    counts = np.bincount(labels[long_tail(labels, 4, 3, rng())])
    assert counts.tolist() == [20, 10, 5]


def test_a_long_tail_that_empties_a_class_is_an_error():
    labels = np.repeat([0, 1], 40)
    message = "task.imbalance=41: the smallest class would keep no row; expected at most 40, "
    with pytest.raises(MetalossError, match=message):
        long_tail(labels, 41, 2, rng())
    assert np.bincount(labels[long_tail(labels, 40, 2, rng())]).tolist() == [40, 1]


def test_pair_noise_names_the_next_class():
    labels = rng(1).integers(0, 7, 1001)
    noisy = flip_labels(labels, 0.4, 7, rng(), NoiseKind.pair)
    wrong = noisy != labels
    assert wrong.sum() == round(0.4 * 1001)
    assert (noisy[wrong] == (labels[wrong] + 1) % 7).all()
    # Which rows are wrong is no matter of the kind.
    assert ((flip_labels(labels, 0.4, 7, rng()) != labels) == wrong).all()


def test_input_noise_is_gaussian_in_units_of_the_inputs_deviation():
    inputs = (rng(1).normal(size=(20000, 2)) * [3.0, 0.5] + 10).astype(np.float32)
    added = add_input_noise(inputs, 0.5, rng(), per_feature=True) - inputs
    for feature, unit in enumerate((1.5, 0.25)):
        assert stats.kstest(added[:, feature] / unit, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(added.T)[0, 1]) < 0.03
    added = add_input_noise(inputs, 0.5, rng(), per_feature=False) - inputs
    assert added.std() == pytest.approx(0.5 * inputs.std(), rel=0.02)


def test_input_noise_leaves_a_constant_feature_alone():
    inputs = np.stack([np.arange(50.0), np.full(50, 7.0)], axis=1).astype(np.float32)
    noisy = add_input_noise(inputs, 1.0, rng(), per_feature=True)
    assert (noisy[:, 1] == 7).all()
    assert (noisy[:, 0] != inputs[:, 0]).all()
