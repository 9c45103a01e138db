"""Products that a traced step need not compute, or not as it is written."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

import metaloss
from metaloss.core.compilation.passes.algebra import simplify_products
from metaloss.losses import MLPLoss
from metaloss.types import Batch

from ..plain_autograd_loop import run
from ..small_setups import setup

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
        pictures = torch.zeros(2, 5, 6, 3, dtype=torch.float64).permute(0, 3, 1, 2)
        filters = x[:2, :12].reshape(2, 3, 2, 2).contiguous(memory_format=torch.channels_last)
        seen = nn.functional.conv2d(pictures, filters) + nn.functional.conv2d(pictures + 1, filters)
        return nothing @ (x.t() @ d) + x @ x.t() @ d, seen.permute(0, 2, 3, 1).reshape(-1, 2)

    graph = simplified(function, X, D)
    assert multiplications(graph) == [4 * 30 * 4, 4 * 4 * 20]
    assert str(graph).count("aten.convolution.default") == 1


def written_zeros(x, y, d):
    rows = torch.zeros(4, 30, dtype=torch.float64)
    rows[:, :20] = d
    return rows @ x.t() + d @ d.t()


def written_view_of_zeros(x, y, d):
    rows = torch.zeros(4, 30, dtype=torch.float64)
    rows.view(30, 4).add_(1.0)
    return rows @ x.t() + d @ d.t()


def written_product(x, y, d):
    first = x @ y.t()
    first.mul_(2)
    return first + x @ y.t()


def written_operand(x, y, d):
    x = x.clone()
    first = x @ y.t()
    x[:, 0] = 7
    return first + x @ y.t()


def written_scale(x, y, d):
    scale = d[0, 0].clone()
    direction = (d.t() @ y) * scale
    scale.mul_(2)
    return x @ direction.t()


def written_undeclared_view(x, y, d):
    sums = torch.zeros(4, 4, dtype=d.dtype) @ d + 2 * d
    torch.ops.aten._unsafe_view(sums, [80]).mul_(3)
    return sums, 2 * d


def written_part(x, y, d):
    d = d.clone()
    direction = d.t() @ y
    d.split(10, 1)[0].fill_(9)
    return x @ direction.t()


@pytest.mark.parametrize(
    "function",
    [
        written_zeros,
        written_view_of_zeros,
        written_product,
        written_operand,
        written_part,
        written_scale,
        written_undeclared_view,
        lambda x, y, d: x.float() @ ((10 * d.t()).long() @ (10 * y).long()).t().mul(0.5),
    ],
)
def test_what_is_written_to_or_of_another_type_is_left_alone(function):
    simplified(function, X, Y, D)


class Padded(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.layer = nn.Linear(6, 5, **options)

    def forward(self, x):
        rows = torch.zeros(len(x), 6, dtype=x.dtype)
        rows[:, :4] = x
        return self.layer(rows)


@pytest.mark.parametrize(
    "layers",
    [
        (nn.Linear(4, 5), nn.LeakyReLU(0.3, inplace=True)),
        (nn.Linear(4, 9), nn.SiLU(inplace=True), nn.Linear(9, 5, bias=False), nn.ELU(0.7, True)),
        (Padded(), nn.ReLU(inplace=True)),
        (Padded(bias=False), nn.Tanh()),
    ],
)
def test_models_that_write_in_place_learn_as_they_do_in_eager_mode(layers):
    learns_alike(copy.deepcopy(nn.Sequential(*layers, nn.Linear(5, 3))), inputs=4)


def test_a_wide_network_s_step_computes_nothing_twice():
    rows, inputs, width = 8, 40, 300
    model = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, 3))
    traced = learns_alike(model, inputs=inputs)
    (program,) = traced.advance.step.whole.programs.values()
    # Forward and back to the weights for the batch that is learned from, forward for the meta-
    # batch: its own way back is a chain, and the forward-mode pass repeats the first.
    wide = [n for n in multiplications(program.graph.graph) if n >= rows * inputs * width]
    assert wide == 3 * [rows * inputs * width]


def learns_alike(model, *, inputs):
    """Compare a traced run with an eager one in float64; return the traced one's set-up."""
    draw = torch.Generator().manual_seed(0)
    parts = [torch.randn(64, inputs, generator=draw) for _ in range(3)]
    targets = torch.randint(3, (64,), generator=draw)
    task = metaloss.task_from_data(*((part, targets) for part in parts))
    task = replace(task, train=doubled(task.train), valid=doubled(task.valid))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for part in model.modules():
            if isinstance(part, nn.Linear):
                part.reset_parameters()
        loss = MLPLoss().double()
    words = ("schedule=online", "start=keep", "inner.lr=0.1", "batch_size=8", "meta_batch_size=8")
    eager, traced = (
        setup(*words, how, task=task, model=model.double(), loss=loss)
        for how in ("compile=off", "compile=trace")
    )
    for (_, expected), (_, found) in zip(run(eager, 5), run(traced, 5), strict=True):
        for one, other in ((found.phi, expected.phi), (found.inner.params, expected.inner.params)):
            for name, value in other.items():
                torch.testing.assert_close(one[name], value, rtol=1e-9, atol=1e-12)
    return traced
