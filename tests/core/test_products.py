"""Products that a traced step need not compute, or not as it is written."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

import metaloss
from metaloss.core.products import simplify_products
from metaloss.losses import MLPLoss
from metaloss.types import Batch

from .hand import run
from .worlds import setup

aten = torch.ops.aten
draw = torch.Generator().manual_seed(0)
X, Y, D = (torch.randn(4, n, generator=draw, dtype=torch.float64) for n in (30, 30, 20))
RATE = torch.tensor(0.1, dtype=torch.float64)


def simplified(function, *tensors):
    """Return a function's graph after the pass, which computes what it did before."""
    traced = make_fx(function, tracing_mode="fake")(*tensors)
    simplify_products(traced.graph)
    traced.graph.lint()
    traced.recompile()
    found, expected = traced(*tensors), function(*tensors)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    return traced.graph


def multiplications(graph):
    """Return how many multiplications each matrix product of a graph takes."""
    found = []
    for node in graph.nodes:
        if node.target in (aten.mm.default, aten.addmm.default):
            left, right = (one.meta["val"].shape for one in node.args[-2:])
            found.append(left[0] * left[1] * right[1])
    return found


def doubled(rows):
    return Batch(rows.inputs.double(), rows.targets)


@pytest.mark.parametrize(
    "direction",
    [
        lambda x, y, d, rate: d.t() @ y,
        lambda x, y, d, rate: -(d.t() @ y) * rate,
        lambda x, y, d, rate: 2.0 * (y.t() @ d).t() / rate,
        lambda x, y, d, rate: rate * (d.t() @ y).detach(),
    ],
)
def test_a_chain_takes_the_shorter_way(direction):
    graph = simplified(lambda *given: given[0] @ direction(*given).t(), X, Y, D, RATE)
    # x x'ᵀ and the rest: 4 · 30 · 4 and 4 · 4 · 20, where x'ᵀδ' alone would be 30 · 4 · 20.
    assert multiplications(graph) == [480, 320]


@pytest.mark.parametrize(
    "direction",
    [
        lambda x, y, d, rate: (d.t() @ y).tanh(),
        lambda x, y, d, rate: rate / (d.t() @ y),
        lambda x, y, d, rate: (d.t() @ y) * y[:1],
    ],
)
def test_what_is_not_scaled_alike_stays_as_it_is(direction):
    graph = simplified(lambda *given: given[0] @ direction(*given).t(), X, Y, D, RATE)
    assert multiplications(graph) == [20 * 4 * 30, 4 * 30 * 20]


def test_a_product_that_is_wanted_itself_stays():
    def function(x, y, d):
        direction = d.t() @ y
        return x @ direction.t(), direction

    assert multiplications(simplified(function, X, Y, D)) == [20 * 4 * 30, 4 * 30 * 20]


def test_a_chain_that_is_short_already_stays():
    many = torch.randn(400, 30, dtype=torch.float64)
    deltas = torch.randn(400, 20, dtype=torch.float64)
    graph = simplified(lambda x, y, d: x @ (d.t() @ y).t(), many, many, deltas)
    assert multiplications(graph) == [20 * 400 * 30, 400 * 30 * 20]


def test_products_with_zeros_are_not_computed():
    def function(x, d):
        nothing = torch.zeros((), dtype=torch.float64).expand(4, 30)
        pictures = torch.zeros(4, 30, dtype=torch.float64).view(4, 1, 5, 6)
        filters = x[:2].reshape(2, 1, 5, 6)
        seen = torch.nn.functional.conv2d(pictures, filters)
        return nothing @ (x.t() @ d) + d, seen + x[0, 0]

    graph = simplified(function, X, D)
    assert not multiplications(graph)
    assert "convolution" not in str(graph)


def test_the_same_product_is_computed_once():
    weight, bias = torch.randn(20, 30, dtype=torch.float64), torch.randn(20, dtype=torch.float64)

    def function(x, weight, bias):
        again = torch.addmm(bias.detach(), x.detach(), weight.t().detach())
        other = torch.addmm(bias, x, 2 * weight.t())
        return torch.addmm(bias, x, weight.t()) * again + other

    assert len(multiplications(simplified(function, X, weight, bias))) == 2


def test_a_wide_network_s_step_computes_nothing_twice():
    rows, inputs, width = 8, 40, 300
    parts = [torch.randn(64, inputs, generator=draw) for _ in range(3)]
    targets = torch.randint(3, (64,), generator=draw)
    task = metaloss.task_from_data(*((part, targets) for part in parts))
    task = replace(task, train=doubled(task.train), valid=doubled(task.valid))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, 3)).double()
        loss = MLPLoss().double()
    words = ("schedule=online", "start=keep", "inner.lr=0.1", f"batch_size={rows}")
    eager, traced = (
        setup(*words, f"meta_batch_size={rows}", how, task=task, model=model, loss=loss)
        for how in ("compile=off", "compile=trace")
    )
    for (_, expected), (_, found) in zip(run(eager, 5), run(traced, 5), strict=True):
        for name, value in expected.phi.items():
            torch.testing.assert_close(found.phi[name], value, rtol=1e-9, atol=1e-12)
    (program,) = traced.advance.step.whole.programs.values()
    # Forward and back to the weights for the batch that is learned from, forward for the one that
    # judges: its own way back is a chain, and the forward-mode pass repeats the first.
    wide = [n for n in multiplications(program.graph.graph) if n >= rows * inputs * width]
    assert wide == 3 * [rows * inputs * width]
