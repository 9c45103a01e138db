"""What a traced step takes of all rows, where it would compute it again of some."""

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

from metaloss.core.compilation.passes.cse import merge_repeated
from metaloss.core.compilation.passes.row_reuse import reuse_rows
from metaloss.core.compilation.passes.rowwise import PRODUCTS
from metaloss.inner.forward_mode import jvp
from metaloss.losses import MLPLoss

draw = torch.Generator().manual_seed(0)
X = torch.randn(8, 3, 6, 6, generator=draw, dtype=torch.float64)
W = torch.randn(108, 108, generator=draw, dtype=torch.float64)
ROWS = torch.tensor([7, 0, 1])


def reused(function, *tensors, **options):
    """Return the products before and after the pass, whose graph computes the same."""
    traced = make_fx(function, tracing_mode="fake")(*tensors)
    merge_repeated(traced.graph)
    before = products(traced.graph)
    reuse_rows(traced.graph, **options)
    traced.recompile()
    torch.testing.assert_close(traced(*tensors), function(*tensors), rtol=1e-12, atol=1e-12)
    return before, products(traced.graph)


def products(graph):
    return sum(node.target in PRODUCTS for node in graph.nodes)


def both(network):
    """Return a function that runs a network on all rows and on some, and its arguments."""
    names = [name for name, _ in network.named_parameters()]

    def function(x, rows, *weights):
        given = dict(zip(names, weights, strict=True))
        return [torch.func.functional_call(network, given, (one,)) for one in (x, x[rows])]

    return function, X, ROWS, *(weight.detach() for weight in network.parameters())


class Block(nn.Module):
    """A block of a transformer, over 36 positions of 3 numbers, two heads."""

    def __init__(self, flash):
        super().__init__()
        self.norm, self.given, self.out = nn.LayerNorm(3), nn.Linear(3, 12), nn.Linear(4, 3)
        self.flash = flash

    def forward(self, x):
        x = x.flatten(2).transpose(1, 2)
        q, k, v = (
            part.unflatten(2, (2, 2)).transpose(1, 2)
            for part in self.given(self.norm(x)).chunk(3, dim=-1)
        )
        if self.flash:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            y = (q @ k.transpose(2, 3) / 2).softmax(3) @ v
        return x + self.out(y.transpose(1, 2).flatten(2))


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


NETWORKS = {
    "layers": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(108, 5), nn.Tanh(), nn.Linear(5, 4, bias=False), nn.Softmax(1)
    ),
    "convolutions": lambda: nn.Sequential(
        nn.ZeroPad2d(1), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 2, 1),
        nn.MaxPool2d(3), nn.GELU(), nn.Flatten(), nn.Linear(2, 3),
    ),
    "groups": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.SiLU(), nn.Conv2d(4, 4, 3, groups=2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    ),
    "attention": lambda: Block(flash=True),
    "attention, written out": lambda: Block(flash=False),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_on_some_rows_takes_them_from_its_pass_over_all(name):
    network = NETWORKS[name]().double()
    before, after = reused(*both(network))
    assert before == 2 * after > 0


def test_the_learned_loss_of_some_rows_takes_its_layers_from_that_of_all():
    loss, targets = MLPLoss().double(), torch.arange(8) % 4
    names = [name for name, _ in loss.named_parameters()]

    def function(x, rows, weight, targets, *phi):
        phi = dict(zip(names, phi, strict=True))
        y, some = x.flatten(1) @ weight, x[rows].flatten(1) @ weight
        given = [(y, targets), (some, targets[rows])]
        return [torch.func.functional_call(loss, phi, one) for one in given]

    phi = [value.detach() for value in loss.parameters()]
    before, after = reused(function, X, ROWS, W[:, :4].contiguous(), targets, *phi)
    assert before == 2 * after > 2


def test_derivatives_of_some_rows_are_computed():
    def function(x, rows, first, second):
        def value(first, second, x):
            return ((x.flatten(1) @ first).tanh() @ second).square().sum()

        along = torch.func.grad(value, (0, 1))(first, second, x)
        moved = jvp(lambda *w: value(*w, x[rows]), (first, second), along)
        return along, moved

    before, after = reused(function, X, ROWS, W[:, :5].contiguous(), W[:5])
    assert before - after == 2


@pytest.mark.parametrize(
    "across",
    [
        lambda x: x - x.mean(0),
        lambda x: x.softmax(0),
        lambda x: x.cumsum(0),
        lambda x: x.t() @ x,
        lambda x: x @ x.t() @ x,
        lambda x: x.flip(0),
        lambda x: x.view(3 * len(x), 36).view(36, -1).t()[:, :36].reshape(-1, 108),
        lambda x: x.t().reshape(-1, 108),
        lambda x: torch.cat([x, x]),
        lambda x: x[1:],
        lambda x: x.expand(2, *x.shape).reshape(-1, 108),
        lambda x: F.layer_norm(x, x.shape),
        lambda x: x + x.sum(),
        lambda x: F.batch_norm(x, None, None, training=True),
    ],
)
def test_what_looks_across_rows_is_computed(across):
    def network(x, weight):
        return across(x.flatten(1) @ weight) @ weight

    def function(x, rows, weight):
        return network(x, weight), network(x[rows], weight)

    before, after = reused(function, X, ROWS, W)
    assert before - after == 1


@pytest.mark.parametrize(
    "numbers",
    [
        lambda y: y / len(y),
        lambda y: y * len(y),
        # Column 3 of the three rows, among columns 8 and 3 of the eight rows.
        lambda y: (y[:, 8], y[:, 3]) if len(y) == 8 else y[:, 3],
        lambda y: (y[:, 8:9], y[:, 3:4]) if len(y) == 8 else y[:, 3:4],
    ],
)
def test_numbers_in_proportion_to_the_rows_are_not_the_same(numbers):
    def function(x, rows, w):
        return [numbers(one.flatten(1) @ w) for one in (x, x[rows])]

    before, after = reused(function, X, ROWS, W)
    assert (before, after) == (2, 1)


def test_other_weights_other_rows_and_values_changed_in_place_are_computed():
    def function(x, rows, weight):
        x = x.flatten(1)
        y = x @ weight
        return y, x[rows] @ (2 * weight), x[rows] + 1, (2 * x)[rows] @ weight

    assert reused(function, X, ROWS, W) == (3, 3)

    def changed(x, rows, weight):
        x = x.flatten(1)
        y = x @ weight
        y.mul_(2)
        return y, x[rows] @ weight

    assert reused(changed, X, ROWS, W) == (2, 2)


def test_two_draws_of_rows_are_not_mixed():
    def function(x, rows, weight):
        y = x.flatten(1) @ weight
        one, other = (x[r].flatten(1) @ weight for r in (rows, rows + 0))
        return y, one, other, one + other

    assert reused(function, X, ROWS - ROWS.min(), W) == (3, 1)


def test_no_more_is_kept_than_is_allowed():
    network = NETWORKS["layers"]().double()
    assert reused(*both(network), kept_bytes=8 * 8 * 4)[1] == 2
    assert reused(*both(network), kept_bytes=8 * 8 * 4 - 1)[1] == 4
