"""What a traced step computes twice, and may compute once."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from metaloss.core import programs
from metaloss.core.repetitions import merge_repeated

from .hand import run
from .worlds import setup

aten = torch.ops.aten
draw = torch.Generator().manual_seed(0)
X = torch.randn(4, 30, generator=draw, dtype=torch.float64)
W = torch.randn(30, 30, generator=draw, dtype=torch.float64)


def merged(function, *tensors, **options):
    """Return a function's graph after the pass, which computes the same to the bit."""
    traced = make_fx(function, tracing_mode="fake")(*tensors)
    merge_repeated(traced.graph, **options)
    traced.graph.lint()
    traced.recompile()
    generator = torch.get_rng_state()
    found = traced(*(tensor.clone() for tensor in tensors))
    torch.set_rng_state(generator)
    expected = function(*(tensor.clone() for tensor in tensors))
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    return traced.graph


def count(graph, *operations):
    return sum(node.target in operations for node in graph.nodes)


def layers(x, weight):
    return ((x @ weight.t()).tanh() @ weight.t()).softmax(1)


def test_a_forward_pass_that_is_run_again_is_run_once():
    graph = merged(lambda x, w: layers(x, w) + layers(x.detach(), w.detach()), X, W)
    assert count(graph, aten.mm.default) == 2
    assert count(graph, aten.tanh.default, aten._softmax.default) == 2


def test_other_rows_or_weights_are_another_forward_pass():
    graph = merged(lambda x, w: layers(x, w) + layers(2 * x, w) + layers(x, 2 * w), X, W)
    assert count(graph, aten.mm.default) == 6


def test_where_too_much_would_be_kept_products_of_what_is_there_are_merged():
    def function(x, w):
        return layers(x.view(4, 30), w) + layers(x.view(4, 30), w)

    # One activation after a product is 4 · 30 numbers, and the softmax as many.
    for allowed, products in ((3 * 4 * 30 * 8, 2), (3 * 4 * 30 * 8 - 1, 3)):
        assert count(merged(function, X, W, kept_bytes=allowed), aten.mm.default) == products


def test_results_of_several_parts_are_merged_part_by_part():
    def function(x):
        (values, places), (again, same) = x.sort(), x.sort()
        return values + again, places + same

    assert count(merged(function, X), aten.sort.default) == 1


def test_constants_of_other_types_and_signs_are_other_constants():
    def function(x):
        return (
            (x * 0.0).reciprocal(),
            (x * -0.0).reciprocal(),
            torch.full((2,), 1),
            torch.full((2,), 1.0),
        )

    graph = merged(function, X.abs())
    assert count(graph, aten.mul.Tensor) == 2
    assert count(graph, aten.full.default) == 2


def test_what_is_drawn_is_drawn_again():
    def function(x):
        return x + torch.rand(4, 30), nn.functional.dropout(x) + nn.functional.dropout(x)

    merged(function, X)
    assert count(merged(lambda x: torch.rand(3) - torch.rand(3), X), aten.rand.default) == 2


def written_result(x, w):
    first, second = x @ w, x @ w
    second.mul_(3)
    return first + second


def written_copy(x, w):
    first, second = x.clone(), x.clone()
    first.add_(1)
    return first @ w, second @ w


def written_view(x, w):
    first, second = x * 2, x * 2
    second.t()[0].zero_()
    return first, second


def written_between(x, w):
    x = x.clone()
    first = x.exp()
    x[:, 0] = 7
    return first + x.exp()


def written_input(x, w):
    first = x.exp()
    x.mul_(2)
    return first + x.exp()


def written_in_silence(x, w):
    norm = partial(nn.functional.batch_norm, training=True, momentum=0.5)
    mean, var = w[0].clone(), w[1].abs()
    once, same = w[0].clone(), w[1].abs()
    first = norm(x, once, same)
    second = norm(x, mean, var) + norm(x, mean, var)
    return first, second, once, same, mean, var


@pytest.mark.parametrize(
    "function",
    [
        written_result,
        written_copy,
        written_view,
        written_between,
        written_input,
        written_in_silence,
    ],
)
def test_what_is_written_to_is_left_alone(function):
    merged(function, X, W)


@pytest.mark.parametrize("words", [(), ("schedule.unroll=3",), ("schedule.meta_batch=next",)])
def test_a_step_learns_the_same_with_and_without(words, monkeypatch):
    model = nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 3), nn.BatchNorm1d(3))
    states, tanhs = [], []
    for kept_bytes in (0, 10**9):
        merge = partial(merge_repeated, kept_bytes=kept_bytes)
        monkeypatch.setattr(programs, "merge_repeated", merge)
        made = setup("schedule=online", "start=random", "compile=trace", *words, model=model)
        *_, (_, state) = run(made, 3)
        states.append((state.phi, state.inner.params, state.inner.buffers))
        graphs = [one.graph.graph for one in made.advance.step.whole.programs.values()]
        tanhs.append(sum(count(graph, aten.tanh.default) for graph in graphs))
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)
    if not words:
        # The inner step, the judgement, and the forward-mode pass, which repeats the first.
        assert tanhs == [3, 2]
