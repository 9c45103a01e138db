"""Random numbers are functions of what they are for; no refactoring may change them silently."""

import pytest
import torch
from scipy import stats
from torch.func import vmap

from metaloss.inner.keys import derive, generator, key_tensor, uniform


def test_keys_are_the_known_ones():
    """Runs of earlier versions are repeated only while these stay."""
    assert derive(0, "batches") == 681580339692449110
    assert derive(0, "batches", 1) == 8299432574121774189
    assert derive(7, "dropout/train", 3) == 3932414489265945321


@pytest.mark.parametrize(
    ("key", "salt", "expected"),
    [
        (0, 0, [0.3033614158630371, 0.810015857219696, 0.14939188957214355, 0.056647658348083496]),
        (1, 5, [0.9106636047363281, 0.3605552315711975, 0.6430110931396484, 0.8856664896011353]),
        (2**40, 5, [0.2078237533569336, 0.5936103463172913, 0.7723955512046814, 0.81966632604599]),
    ],
)
def test_draws_are_the_known_ones(key, salt, expected):
    drawn = uniform(torch.tensor(key), salt, torch.Size([2, 2]))
    assert drawn.dtype == torch.float32
    assert drawn.flatten().tolist() == expected


def test_derived_keys_differ():
    keys = {
        derive(seed, purpose, *rest)
        for seed in range(20)
        for purpose in ("train", "meta", "dropout/train")
        for rest in ((), (0,), (1,), (1, 1), (11,))
    }
    assert len(keys) == 20 * 3 * 5
    assert all(0 <= key < 2**63 for key in keys)


def test_generators_repeat_and_leave_the_global_one_alone():
    before = torch.get_rng_state()
    first, second = (torch.rand(8, generator=generator(3, "weights", 1)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, torch.rand(8, generator=generator(3, "weights", 2)))
    assert torch.equal(before, torch.get_rng_state())


def test_a_key_tensor_holds_the_key():
    key = key_tensor(5, "dropout", 2, device="cpu")
    assert key.shape == ()
    assert key.dtype == torch.int64
    assert int(key) == derive(5, "dropout", 2)


@pytest.mark.parametrize("key", [0, 1, 2**32, derive(0, "x"), 2**63 - 1])
def test_draws_are_uniform(key):
    drawn = uniform(torch.tensor(key), 3, torch.Size([20_000]))
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert stats.kstest(drawn.numpy(), "uniform").pvalue > 1e-3


def test_draws_at_one_position_are_uniform_over_keys_and_over_salts():
    keys = torch.tensor([derive(0, "step", k) for k in range(5_000)])
    over_keys = vmap(lambda key: uniform(key, 0, torch.Size([2])))(keys)[:, 1]
    key = torch.tensor(derive(0, "step"))
    over_salts = torch.stack([uniform(key, salt, torch.Size([2]))[1] for salt in range(5_000)])
    for drawn in (over_keys, over_salts):
        assert stats.kstest(drawn.numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((5, 0), (5, 1)),
        ((5, 0), (6, 0)),
        ((5, 0), (5 + 2**32, 0)),
        ((5, 0), (5, 2**16)),
        ((2**40, 7), (2**41, 7)),
        ((0, 1), (1, 0)),
    ],
)
def test_draws_under_other_keys_and_salts_are_independent(first, second):
    """Chi-squared over a 10 × 10 table of pairs, and no shift of one is the other."""
    a, b = (uniform(torch.tensor(k), salt, torch.Size([20_000])) for k, salt in (first, second))
    table = torch.bincount((a * 10).long() * 10 + (b * 10).long(), minlength=100)
    assert stats.chi2_contingency(table.reshape(10, 10).numpy()).pvalue > 1e-3
    for shift in range(-3, 4):
        assert (a.roll(shift) == b).float().mean() < 1e-3


def test_draws_are_not_correlated_along_the_positions():
    drawn = uniform(torch.tensor(derive(1, "x")), 0, torch.Size([50_000])) - 0.5
    for lag in (1, 2, 8, 64, 4096):
        correlation = (drawn * drawn.roll(lag)).mean() / drawn.var()
        assert abs(correlation) < 4 / 50_000**0.5, lag


def test_a_draw_depends_on_its_position_alone_not_on_the_shape():
    key = torch.tensor(9)
    line = uniform(key, 1, torch.Size([24]))
    assert torch.equal(uniform(key, 1, torch.Size([2, 3, 4])).flatten(), line)
    assert torch.equal(uniform(key, 1, torch.Size([10])), line[:10])
    assert uniform(key, 1, torch.Size([])) == line[0]
    assert uniform(key, 1, torch.Size([0, 3])).shape == (0, 3)
