"""Random numbers that a model draws by itself: the same in every pass of a step."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import metaloss
from metaloss.inner import SGD
from metaloss.inner.model.randomness import glance
from metaloss.losses import MLPLoss

from .small import Layer, batch, seeded


def numpy_mask(model, h):
    return h * torch.from_numpy((np.random.rand(*h.shape) > 0.3).astype("float64"))  # noqa: NPY002


def python_skip(model, h):
    return h if random.random() > 0.5 else 2 * h


def own_generator(model, h):
    return h + torch.randn(h.shape, generator=model.own, dtype=h.dtype)


def numpy_generator(model, h):
    return h + torch.from_numpy(model.own.normal(size=tuple(h.shape)))


DRAWING = {
    "numpy": (numpy_mask, None),
    "random": (python_skip, None),
    "torch.Generator": (own_generator, lambda: torch.Generator().manual_seed(1)),
    "numpy's Generator": (numpy_generator, lambda: np.random.default_rng(1)),
    "torch": (lambda model, h: h + torch.randn_like(h), None),
}


@pytest.mark.parametrize("name", DRAWING)
def test_every_pass_of_a_step_draws_the_same(name):
    """All engines see the same numbers, and no generator of the user's has moved."""
    function, own = DRAWING[name]
    found = {}
    for engine in ("torchopt", "mixed", "finite_difference"):
        model = seeded(lambda: Layer(function)).double()
        model.own = own and own()
        before = (random.getstate(), str(np.random.get_state()), torch.get_rng_state())  # noqa: NPY002
        gradient = metaloss.meta_gradient(
            model,
            seeded(MLPLoss).double(),
            [batch(0), batch(1)],
            batch(2),
            inner=SGD(lr=0.1),
            task_loss=F.cross_entropy,
            engine=engine,
        )
        found[engine] = torch.cat([value.flatten() for value in gradient.values()])
        assert before[0] == random.getstate()
        assert before[1] == str(np.random.get_state())  # noqa: NPY002
        assert torch.equal(before[2], torch.get_rng_state())
    assert found["torchopt"].norm() > 1e-5
    torch.testing.assert_close(found["mixed"], found["torchopt"], rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(found["finite_difference"], found["torchopt"], rtol=1e-2, atol=1e-6)


class Late(nn.Module):
    """A model that begins to draw once it has seen some batches."""

    def __init__(self, draw):
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)
        self.draw = draw
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        self.seen += 1
        h = torch.tanh(self.first(x))
        return self.last(self.draw(h) if int(self.seen) > 2 else h)


@pytest.mark.parametrize(
    "draw",
    [
        lambda h: h + torch.randn_like(h),
        lambda h: h * torch.from_numpy(np.random.rand(*h.shape)),  # noqa: NPY002
        lambda h: h * random.choice([0.2, 5.0]),
    ],
    ids=["torch", "numpy", "random"],
)
def test_randomness_that_begins_late_is_the_same_in_every_pass(draw):
    found = []
    for engine in ("mixed", "torchopt"):
        model, loss = seeded(lambda: Late(draw)).double(), seeded(MLPLoss).double()
        learner = metaloss.Learner(
            model, loss, task_loss=F.cross_entropy, inner=SGD(lr=0.5), meta_optimizer=engine
        )
        before = torch.get_rng_state()
        for step in range(6):
            learner.step(batch(step), batch(step + 10))
        assert torch.equal(before, torch.get_rng_state())
        found.append([value.detach() for value in (*model.parameters(), *loss.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("draw", [random.random, np.random.rand], ids=["random", "numpy"])
def test_a_glance_sees_each_draw(draw):
    seen = {glance()}
    for _ in range(1300):
        draw()
        seen.add(glance())
    assert len(seen) == 1301
    assert glance() == glance()
