"""Wrong labels, noise, long tails and subsets: what they change, and what they leave alone."""

import math

import numpy as np
import pytest
import torch

from metaloss.data.corruptions import NoiseKind
from metaloss.data.images.digits import Digits
from metaloss.data.sequences.mnist1d import MNIST1D
from metaloss.data.tables.diabetes import Diabetes
from metaloss.errors import MetalossError

from .small_sources import each_source, make, same


@each_source
@pytest.mark.parametrize("share", [0.2, 0.5])
def test_exactly_the_share_of_training_targets_is_corrupted(name, share):
    clean, noisy = make(name).build(2), make(name, label_noise=share).build(2)
    differ = (clean.train.targets != noisy.train.targets).sum().item()
    assert differ == round(share * len(clean.train.targets))
    assert torch.equal(clean.train.inputs, noisy.train.inputs)


@each_source
def test_noise_never_touches_test_and_validation_only_if_asked(name):
    clean = make(name).build(2)
    noisy = make(name, label_noise=0.5).build(2)
    both = make(name, label_noise=0.5, noisy_validation=True).build(2)
    assert same(clean.valid, noisy.valid)
    assert same(clean.test, noisy.test)
    assert same(clean.test, both.test)
    assert same(noisy.train, both.train)
    differ = (clean.valid.targets != both.valid.targets).sum().item()
    assert differ == round(0.5 * len(clean.valid.targets))


@each_source
def test_noise_on_inputs_is_on_training_inputs_alone(name):
    clean, noisy = make(name).build(2), make(name, input_noise=0.5).build(2)
    for part in ("valid", "test"):
        assert same(getattr(clean, part), getattr(noisy, part))
    assert torch.equal(clean.train.targets, noisy.train.targets)
    added = noisy.train.inputs - clean.train.inputs
    assert added.std().item() == pytest.approx(0.5, rel=0.05)
    again = make(name, input_noise=0.5, label_noise=0.2).build(2)
    assert torch.equal(again.train.inputs, noisy.train.inputs)


@each_source
def test_few_validation_rows_are_kept_for_meta_batches(name):
    whole, part = make(name).rows(0), make(name, meta_fraction=0.2).rows(0)
    assert len(part.valid) == round(0.2 * len(whole.valid))
    assert set(part.valid) < set(whole.valid)
    assert (part.train == whole.train).all()
    assert (part.test == whole.test).all()


def test_the_kept_validation_rows_are_stratified():
    targets = Digits(meta_fraction=0.4).build(0).valid.targets
    counts = torch.bincount(targets, minlength=10)
    whole = torch.bincount(Digits().build(0).valid.targets, minlength=10)
    assert (counts - 0.4 * whole).abs().max() < 1.5


def test_pair_noise_moves_labels_to_the_next_class():
    clean = Digits().build(2).train.targets
    noisy = Digits(label_noise=0.45, noise_kind=NoiseKind.pair).build(2).train.targets
    wrong = clean != noisy
    assert wrong.sum() == round(0.45 * len(clean))
    assert torch.equal(noisy[wrong], (clean[wrong] + 1) % 10)


def test_outliers_have_the_stated_size():
    clean = Diabetes(valid_fraction=0.01, test_fraction=0.01).build(0).train.targets
    for size in (0.5, 8.0):
        noisy = Diabetes(
            label_noise=0.9, outlier_size=size, valid_fraction=0.01, test_fraction=0.01
        ).build(0)
        added = (noisy.train.targets - clean)[noisy.train.targets != clean]
        assert added.std().item() == pytest.approx(size, rel=0.15)


def test_imbalance_follows_the_profile_in_the_training_rows_alone():
    plain, tailed = Digits().build(0), Digits(imbalance=20).build(0)
    counts = torch.bincount(tailed.train.targets, minlength=10)
    largest = int(counts[0])
    assert largest > 90
    assert counts.tolist() == [round(largest * 20 ** (-c / 9)) for c in range(10)]
    assert same(
        plain.valid._replace(inputs=plain.valid.targets),
        tailed.valid._replace(inputs=tailed.valid.targets),
    )
    assert (Digits().rows(0).test == Digits(imbalance=20).rows(0).test).all()
    assert set(Digits(imbalance=20).rows(0).train) < set(Digits().rows(0).train)


@each_source
def test_a_subset_keeps_so_many_training_rows(name):
    whole, part = make(name).rows(0), make(name, subset=50).rows(0)
    assert len(part.train) == 50
    assert set(part.train) < set(whole.train)
    assert (part.valid == whole.valid).all()
    assert (part.test == whole.test).all()
    assert len(make(name, subset=50).build(0).train.inputs) == 50


def test_a_subset_keeps_the_imbalance():
    targets = Digits(imbalance=10, subset=200).build(0).train.targets
    full = torch.bincount(Digits(imbalance=10).build(0).train.targets, minlength=10)
    expected = full * 200 / full.sum()
    assert (torch.bincount(targets, minlength=10) - expected).abs().max() < 1


BAD = [
    (Digits, {"label_noise": 1.0}, "task.label_noise=1.0: expected a number ≥ 0 and < 1"),
    (Digits, {"label_noise": -0.1}, "task.label_noise=-0.1: expected a number ≥ 0 and < 1"),
    (Digits, {"label_noise": math.nan}, "task.label_noise=nan: expected a number ≥ 0 and < 1"),
    (Digits, {"label_noise": "much"}, "task.label_noise=much: expected a number ≥ 0 and < 1"),
    (Digits, {"imbalance": 0.5}, "task.imbalance=0.5: expected a number ≥ 1 and finite"),
    (Digits, {"imbalance": math.inf}, "task.imbalance=inf: expected a number ≥ 1 and finite"),
    (Digits, {"label_smoothing": 1}, "task.label_smoothing=1: expected a number ≥ 0 and < 1"),
    (Diabetes, {"outlier_size": 0}, "task.outlier_size=0: expected a number > 0 and finite"),
    (Digits, {"valid_fraction": 0}, "task.valid_fraction=0: expected a number > 0 and < 1"),
    (Digits, {"test_fraction": 1.5}, "task.test_fraction=1.5: expected a number > 0 and < 1"),
    (
        Digits,
        {"valid_fraction": 0.5, "test_fraction": 0.5},
        "task.valid_fraction=0.5 and task.test_fraction=0.5: expected a sum below 1",
    ),
    (Digits, {"input_noise": -1}, "task.input_noise=-1: expected a number ≥ 0 and finite"),
    (Digits, {"meta_fraction": 0}, "task.meta_fraction=0: expected a number > 0 and ≤ 1"),
    (Digits, {"meta_fraction": 1.1}, "task.meta_fraction=1.1: expected a number > 0 and ≤ 1"),
    (Digits, {"subset": 0}, "task.subset=0: expected a whole number, at least 1"),
    (Digits, {"subset": 2.5}, "task.subset=2.5: expected a whole number, at least 1"),
    (Digits, {"split_seed": -1}, "task.split_seed=-1: expected a whole number, at least 0"),
    (MNIST1D, {"samples": 10}, "task.samples=10: expected a whole number, at least 100"),
]


@pytest.mark.parametrize(("source", "options", "message"), BAD)
def test_options_out_of_range_are_named_with_the_range(source, options, message):
    with pytest.raises(MetalossError) as error:
        source(**options)
    assert str(error.value) == message


def test_more_rows_than_there_are_is_an_error():
    with pytest.raises(MetalossError, match=r"^task.subset=1079: expected at most 1078, the train"):
        Digits(subset=1079).build(0)
    message = r"^task.meta_fraction=0.001: no trusted rows left, of 270; .* least 0.0037$"
    with pytest.raises(MetalossError, match=message):
        Digits(meta_fraction=0.001).build(0)
    with pytest.raises(MetalossError, match=r"^task.imbalance=200: the smallest class would keep"):
        Digits(imbalance=200).build(0)


def test_folds_put_every_trusted_row_in_the_place_of_the_test_rows_once():
    whole, folds = Digits().rows(0), [Digits(folds=3, split_seed=0).rows(k) for k in (5, 6, 7)]
    assert sorted(np.concatenate([fold.test for fold in folds])) == whole.valid.tolist()
    for fold in folds:
        assert sorted([*fold.test, *fold.valid]) == whole.valid.tolist()
        assert (fold.train == whole.train).all()


def test_folds_of_noisy_trusted_rows_are_noisy_too():
    clean = Digits(folds=2).build(0).test.targets
    assert torch.equal(clean, Digits(folds=2, label_noise=0.4).build(0).test.targets)
    noisy = Digits(folds=2, label_noise=0.4, noisy_validation=True).build(0).test.targets
    assert (noisy != clean).sum() == round(0.4 * len(clean))


@pytest.mark.parametrize("folds", [1, 300])
def test_folds_without_rows_are_refused(folds):
    with pytest.raises(MetalossError, match=f"task.folds={folds}: expected 2 to 270"):
        Digits(folds=folds).build(0)
