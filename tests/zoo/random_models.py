"""Models made of random layers, for the search of counterexamples."""

from __future__ import annotations

from collections.abc import Callable

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from .kind import CLASSES, Net

WIDTH = 4
_POINTWISE: list[Callable[[], nn.Module]] = [
    nn.Tanh,
    nn.Sigmoid,
    nn.SiLU,
    nn.GELU,
    nn.Softplus,
    nn.ELU,
    nn.ReLU,
    lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(inplace=True)),
    nn.LeakyReLU,
    lambda: nn.PReLU(),
    lambda: nn.Softmax(-1),
]
_MIXING: list[Callable[[], nn.Module]] = [
    lambda: nn.Linear(WIDTH, WIDTH),
    lambda: nn.Linear(WIDTH, WIDTH, bias=False),
    lambda: nn.LayerNorm(WIDTH),
    lambda: nn.RMSNorm(WIDTH),
    lambda: nn.BatchNorm1d(WIDTH),
    lambda: nn.BatchNorm1d(WIDTH, affine=False),
    lambda: nn.BatchNorm1d(WIDTH).eval(),
    lambda: nn.GroupNorm(2, WIDTH),
    lambda: nn.Sequential(nn.Unflatten(1, (2, 2)), nn.Conv1d(2, 2, 3, padding=1), nn.Flatten()),
    lambda: nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 1, 2, padding=1), nn.MaxPool2d(2, 1), nn.Flatten()
    ),
    lambda: _recurrent(nn.GRU(2, 2, batch_first=True)),
    lambda: _recurrent(nn.LSTM(2, 2, batch_first=True)),
    lambda: _attention(),
    lambda: nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GLU()),
    lambda: nn.utils.parametrizations.orthogonal(nn.Linear(WIDTH, WIDTH)),
    lambda: nn.Linear(WIDTH, WIDTH).requires_grad_(False),
]


def _recurrent(layer: nn.Module) -> nn.Module:
    return Net(lambda m, x: m.layer(x.view(-1, 2, 2))[0].flatten(1), layer=layer)


def _attention() -> nn.Module:
    layer = nn.MultiheadAttention(2, 1, batch_first=True)
    return Net(lambda m, x: _attended(m.layer, x.view(-1, 2, 2)).flatten(1), layer=layer)


def _attended(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x, x, x, need_weights=False)[0]


@st.composite
def bodies(draw, depth: int = 2) -> Callable[[], nn.Module]:
    """Return something that makes a module of (B, 4) to (B, 4) numbers."""
    count = draw(st.integers(1, 3))
    parts = [draw(_part(depth)) for _ in range(count)]
    return lambda: nn.Sequential(*(part() for part in parts))


def _part(depth: int):
    leaves = st.sampled_from(_POINTWISE + _MIXING)
    if depth == 0:
        return leaves
    inner = bodies(depth - 1)
    return st.one_of(
        leaves,
        st.builds(_residual, inner),
        st.builds(_gated, inner, inner),
        st.builds(_added, inner, inner),
        st.builds(_repeated, inner),
        st.builds(_cut, inner),
    )


def _residual(inner):
    return lambda: Net(lambda m, x: x + m.inner(x), inner=inner())


def _gated(one, two):
    return lambda: Net(lambda m, x: m.one(x) * torch.sigmoid(m.two(x)), one=one(), two=two())


def _added(one, two):
    return lambda: Net(lambda m, x: m.one(x) - m.two(x.flip(1)), one=one(), two=two())


def _repeated(inner):
    return lambda: Net(lambda m, x: m.inner(torch.tanh(m.inner(x))), inner=inner())


def _cut(inner):
    """A part that autograd does not see."""
    return lambda: Net(lambda m, x: x + m.inner(x.detach()).detach(), inner=inner(), cut=True)


@st.composite
def models(draw) -> Callable[[], nn.Module]:
    """Return something that makes a model of (B, 4) inputs, the same at every call."""
    body, seed = draw(bodies()), draw(st.integers(0, 2**16))
    tied, frozen = draw(st.booleans()), draw(st.booleans())
    return _around(body, seed, tied=tied, frozen=frozen)


def hidden_by_a_norm() -> Callable[[], nn.Module]:
    """Return a model that was found by search.

    Its detached part moves the outputs by some millionths and bends them by 0.4 %.
    """

    def body() -> nn.Module:
        cut = _cut(lambda: nn.Linear(WIDTH, WIDTH).requires_grad_(False))
        twice = _repeated(lambda: nn.Sequential(cut(), nn.GroupNorm(2, WIDTH)))
        norms = _residual(lambda: nn.Sequential(nn.GroupNorm(2, WIDTH), nn.BatchNorm1d(WIDTH)))
        return nn.Sequential(twice(), norms())

    return _around(body, 13916, tied=True, frozen=True)


def _around(
    body: Callable[[], nn.Module], seed: int, *, tied: bool, frozen: bool
) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            first, second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
            if tied:
                second.weight = first.weight
            if frozen:
                first.bias.requires_grad_(False)
            return nn.Sequential(first, body(), second, nn.Linear(WIDTH, CLASSES)).double()

    return make


def rounded(make: Callable[[], nn.Module], seed: int) -> Callable[[], nn.Module]:
    """Return something that makes the same model, each part of which rounds coarsely.

    How far a gradient moves by it says how far two exact ways may be apart: they round differently
    at every operation, and a norm of nearly equal numbers makes much of it.
    """

    def made() -> nn.Module:
        model, generator = make(), torch.Generator().manual_seed(seed)

        def noisy(values: Tensor) -> Tensor:
            draw = torch.randn(values.shape, dtype=values.dtype, generator=generator)
            return values * (1 + 1e-14 * draw)

        for part in model.modules():
            if isinstance(part, (nn.MultiheadAttention, nn.GRU, nn.LSTM)):
                part.register_forward_hook(lambda m, given, out: (noisy(out[0]), *out[1:]))
            elif not list(part.children()):
                part.register_forward_hook(lambda m, given, out: noisy(out))
        return model

    return made
