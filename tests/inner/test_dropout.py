"""Dropout by key, and randomness that is not ours."""

import pytest
import torch
from torch import nn
from torch.func import vmap
from torch.nn import functional as F

from metaloss.inner import FunctionalModel
from metaloss.inner.keys import derive

ONES = torch.ones(40, 50)


def masks(module: nn.Module, key: int, rows: torch.Tensor = ONES, *, train: bool = True):
    model = FunctionalModel(module)
    params, buffers = model.state()
    return model(params, buffers, rows, key=torch.tensor(key), train=train)[0]


def both(first: nn.Module, second: nn.Module) -> nn.Module:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = first, second

        def forward(self, x):
            return torch.stack((self.first(x), self.second(x)))

    return Both()


def test_same_key_same_mask_other_key_other_mask():
    layer = nn.Dropout(0.5)
    assert torch.equal(masks(layer, 1), masks(layer, 1))
    for other in (2, 1 + 2**32, 1 + 2**50):
        agree = (masks(layer, 1) == masks(layer, other)).float().mean()
        assert 0.4 < agree < 0.6


def test_two_layers_draw_two_masks():
    one, two = masks(both(nn.Dropout(0.5), nn.Dropout(0.5)), 1)
    assert 0.4 < (one == two).float().mean() < 0.6


def test_a_layer_used_twice_draws_twice_under_whatever_names():
    shared = nn.Dropout(0.5)
    model = FunctionalModel(both(shared, shared))
    params, buffers = model.state()
    one, two = model(params, buffers, ONES, key=torch.tensor(1))[0]
    assert 0.4 < (one == two).float().mean() < 0.6
    assert model.foreign_randomness is False, "one of the names was left with ordinary dropout"
    again = model(params, buffers, ONES, key=torch.tensor(1))[0]
    assert torch.equal(again, torch.stack((one, two)))


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
def test_the_share_kept_and_the_scale(p):
    kept = masks(nn.Dropout(p), derive(0, "x"), torch.ones(200, 200))
    share = (kept > 0).double().mean().item()
    assert share == pytest.approx(1 - p, abs=4 * (p * (1 - p) / 40_000) ** 0.5)
    assert torch.unique(kept).tolist() == pytest.approx([0.0, 1 / (1 - p)])


@pytest.mark.parametrize(("p", "expected"), [(0.0, 1.0), (1.0, 0.0)])
def test_the_ends_of_the_range(p, expected):
    assert torch.equal(masks(nn.Dropout(p), 1), torch.full_like(ONES, expected))


def test_evaluation_mode_drops_nothing():
    assert torch.equal(masks(nn.Dropout(0.5), 1, train=False), ONES)


def test_a_layer_set_to_evaluation_drops_nothing():
    module = both(nn.Dropout(0.5), nn.Dropout(0.5))
    module.first.eval()
    one, two = masks(module, 1)
    assert torch.equal(one, ONES)
    assert not torch.equal(two, ONES)


def test_a_key_is_asked_for():
    model = FunctionalModel(nn.Dropout(0.5))
    with pytest.raises(ValueError, match="a model with dropout needs a key in train mode"):
        model(*model.state(), ONES)
    assert torch.equal(model(*model.state(), ONES, train=False)[0], ONES)


def test_vmap_over_keys_equals_the_loop():
    module = nn.Sequential(nn.Linear(50, 20), nn.Dropout(0.4), nn.Tanh(), nn.Dropout(0.4))
    model = FunctionalModel(module)
    params, buffers = model.state()
    keys = torch.tensor([derive(0, "step", k) for k in range(4)])

    def at(key):
        return model(params, buffers, ONES, key=key)[0]

    at(keys[0])  # the first forward finds out whether there is other randomness
    together = vmap(at)(keys)
    for k, key in enumerate(keys):
        torch.testing.assert_close(together[k], at(key))
    assert not torch.equal(together[0], together[1])


def test_dropout_leaves_the_global_generator_alone_and_does_not_depend_on_it():
    before = torch.get_rng_state()
    with torch.random.fork_rng():
        torch.manual_seed(5)
        first = masks(nn.Dropout(0.5), 1)
    assert torch.equal(first, masks(nn.Dropout(0.5), 1))
    assert torch.equal(before, torch.get_rng_state())


def test_the_users_module_keeps_its_own_dropout():
    module = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.2))
    masks(module, 1)
    assert [type(part) for part in module] == [nn.Dropout, nn.Dropout]


class Functional(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5, self.training)


class Noise(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x) if self.training else x


FOREIGN = {
    "dropout1d": lambda: nn.Dropout1d(0.5),
    "alpha_dropout": lambda: nn.AlphaDropout(0.5),
    "functional": Functional,
    "noise": Noise,
    "subclass": lambda: type("Mine", (nn.Dropout,), {})(0.5),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_randomness_is_seen_seeded_and_contained(name):
    model = FunctionalModel(FOREIGN[name]())
    assert model.foreign_randomness is None
    params, buffers = model.state()
    before = torch.get_rng_state()

    def at(key):
        return model(params, buffers, ONES, key=torch.tensor(key))[0]

    first = at(1)
    assert model.foreign_randomness is True
    assert torch.equal(at(1), first)
    assert not torch.equal(at(2), first)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(model(params, buffers, ONES, train=False)[0], ONES)


@pytest.mark.parametrize("module", [nn.Identity(), nn.Dropout(0.5), nn.Linear(50, 2)])
def test_no_false_alarm(module):
    model = FunctionalModel(module)
    params, buffers = model.state()
    model(params, buffers, ONES, key=torch.tensor(1))
    assert model.foreign_randomness is False
