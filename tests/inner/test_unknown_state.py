"""State that a model does not know of."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import metaloss
from metaloss.errors import MetalossError
from metaloss.inner import SGD
from metaloss.losses import MLPLoss, Scaled

from .small import Layer, batch, seeded


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda self: setattr(self, "norms", [nn.BatchNorm1d(8, affine=False)]),
            "has a BatchNorm1d in the plain list 'norms'",
        ),
        (lambda self: self.register_buffer("mean", None), "adds or removes 'mean'"),
    ],
)
def test_state_that_the_model_does_not_know_of_is_refused(build, message):
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)
            build(self)

        def forward(self, x):
            h = self.first(x)
            if hasattr(self, "norms"):
                h = self.norms[0](h)
            else:
                now = h.mean(0).detach()
                self.mean = now if self.mean is None else 0.9 * self.mean + 0.1 * now
                h = h - self.mean
            return self.last(torch.tanh(h))

    learner = metaloss.Learner(seeded(Hidden), MLPLoss(), task_loss=F.cross_entropy)
    inputs, targets = batch(0)
    with pytest.raises(MetalossError, match=message):
        learner.step((inputs.float(), targets), (inputs.float(), targets))
    assert getattr(learner.model, "mean", None) is None


@pytest.mark.parametrize("name", ["one", "two"])
def test_a_buffer_of_two_names_that_a_pass_makes_two_of_is_refused(name):
    def centred(model, h):
        mean = h.detach().mean(0)
        setattr(model, name, 0.5 * getattr(model, name) + 0.5 * mean)
        return h - model.one - 2 * model.two

    def build():
        model = Layer(centred).double()
        model.register_buffer("one", torch.zeros(8).double())
        model.register_buffer("two", model.one)
        return model

    model, plain = seeded(build), seeded(build)
    learner = metaloss.Learner(
        model, Scaled().double(), task_loss=F.cross_entropy, inner=SGD(lr=0.5)
    )
    with pytest.raises(
        MetalossError, match=r"model's 'one' and 'two' are one tensor, and its forward"
    ):
        learner.step(batch(0))
    assert model.one is model.two
    # The way out that it names.
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.5)
    with torch.no_grad():
        model(batch(0)[0])
        plain(batch(0)[0])
    for step in range(3):
        pair = batch(step)
        learner.step(pair)
        optimizer.zero_grad()
        F.cross_entropy(plain(pair[0]), pair[1]).backward()
        optimizer.step()
    assert not torch.equal(plain.one, plain.two)
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], value, rtol=1e-12, atol=1e-14)
