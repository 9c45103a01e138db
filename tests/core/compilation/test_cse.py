"""What a traced step computes twice, and may compute once."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from metaloss.core.compilation import program as programs
from metaloss.core.compilation.passes.cse import merge_repeated

from ..plain_autograd_loop import run
from ..small_setups import setup

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
    results = []
    for way in (traced, function):
        given = [tensor.clone() for tensor in tensors]
        torch.manual_seed(0)
        results.append((way(*given), given))
    torch.testing.assert_close(*results, rtol=0, atol=0, equal_nan=True)
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


def test_no_more_is_kept_than_is_allowed():
    def function(x, w):
        return layers(x.view(4, 30), w) + layers(x.view(4, 30), w)

    # What follows a product is 4 · 30 numbers, and the softmax as many; tanh comes in passing.
    for values, left in ((3, 3), (2.9, 4), (2, 4), (1.9, 5), (1, 5), (0.9, 6), (0, 6)):
        graph = merged(function, X, W, kept_bytes=int(values * 4 * 30 * 8))
        assert count(graph, aten.mm.default, aten._softmax.default) == left


def test_an_operation_of_several_results_is_as_large_as_all_of_them():
    def function(x):
        (values, places), (again, same) = x.sort(), x.sort()
        return values + again, places + same

    for allowed, left in ((2 * 120 * 8, 1), (2 * 120 * 8 - 1, 2)):
        assert count(merged(function, X, kept_bytes=allowed), aten.sort.default) == left


def test_two_results_stay_two_tensors():
    traced = make_fx(lambda x: (x.exp(), x.exp(), x.exp() + 1), tracing_mode="fake")(X)
    merge_repeated(traced.graph)
    traced.recompile()
    first, second, more = traced(X)
    assert first.data_ptr() != second.data_ptr()
    assert count(traced.graph, aten.exp.default) == 2
    torch.testing.assert_close(more, X.exp() + 1)


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


def written_rows(x, w):
    """A linear layer without bias on rows of rows: a view that is declared as none."""
    rows = x.view(2, 2, 30)
    first, second = rows @ w, rows @ w
    second.mul_(3)
    return first + second


def written_activation(x, w):
    rows = x.view(2, 2, 30)
    return [nn.functional.elu(rows @ w, inplace=True) for _ in range(2)]


def written_parts(x, w):
    first, second = x @ w, x @ w
    for part in second.unsafe_chunk(3, 1):
        part.sigmoid_()
    return first + second


def written_out(x, w):
    place = torch.empty_like(w)
    view = place.view(900)
    result = torch.add(w, 1, out=place)
    first = result.exp()
    view.zero_()
    return first, result.exp()


def written_statistics(x, w):
    mean, var = w[0].clone(), w[1].abs()
    found = [torch.batch_norm_update_stats(x, mean, var, 0.1) for _ in range(2)]
    return found, mean, var


@pytest.mark.parametrize(
    "function",
    [
        written_result,
        written_rows,
        written_activation,
        written_parts,
        written_out,
        written_statistics,
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
    bare = partial(nn.Linear, bias=False)
    rows = (nn.Unflatten(1, (2, 2)), bare(2, 5), nn.ELU(inplace=True), bare(5, 3), nn.Flatten())
    model = nn.Sequential(*rows, nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 3), nn.BatchNorm1d(3))
    states, tanhs = [], []
    for merge in (lambda graph: None, merge_repeated):
        monkeypatch.setattr(programs, "merge_repeated", merge)
        made = setup("schedule=online", "start=random", "compile=trace", *words, model=model)
        *_, (_, state) = run(made, 3)
        states.append((state.phi, state.inner.params, state.inner.buffers))
        graphs = [one.graph.graph for one in made.advance.step.whole.programs.values()]
        tanhs.append(sum(count(graph, aten.tanh.default) for graph in graphs))
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)
    if not words:
        # The inner step, the task loss, and the forward-mode pass, which repeats the first; but
        # what comes after a value that is written to is computed again.
        assert tanhs == [3, 3]


def test_a_step_runs_its_model_once_less(monkeypatch):
    model = nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 3), nn.Sigmoid())
    counts = []
    for merge in (lambda graph: None, merge_repeated):
        monkeypatch.setattr(programs, "merge_repeated", merge)
        made = setup("schedule=online", "start=random", "compile=trace", model=model)
        *_, _ = run(made, 3)
        (program,) = made.advance.step.whole.programs.values()
        graph = program.graph.graph
        counts.append((count(graph, aten.tanh.default), count(graph, aten.addmm.default)))
    (tanhs, products), found = counts
    # The inner step, the task loss, and the forward-mode pass, which repeats the first.
    assert tanhs == 3
    # Two layers of the model and the hidden one of the loss, which is run again as well.
    assert found == (2, products - 2 - 1)
