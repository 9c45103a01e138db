"""Forward passes that a backward pass runs again: left out, right, or refused."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import metaloss
from metaloss.errors import MetalossError
from metaloss.inner import SGD
from metaloss.losses import Scaled

from .small import batch
from .small import seeded as seeded_once


def seeded(build):
    return seeded_once(build).double()


def learner_of(model):
    return metaloss.Learner(model, Scaled().double(), task_loss=F.cross_entropy, inner=SGD(lr=0.5))


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_model_trains_like_one_without_checkpoints(reentrant):
    class Net(nn.Module):
        def __init__(self, saves):
            super().__init__()
            self.stem, self.head, self.saves = nn.Linear(6, 5), nn.Linear(5, 3), saves
            self.body = nn.Sequential(nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 5))

        def forward(self, x):
            h = self.stem(x)
            if self.saves:
                return self.head(checkpoint(self.body, h, use_reentrant=reentrant))
            return self.head(self.body(h))

    model, plain = (seeded(lambda saves=saves: Net(saves)).double() for saves in (True, False))
    loss = Scaled().double()
    learner = metaloss.Learner(model, loss, task_loss=F.cross_entropy, inner=SGD(lr=0.5))
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.5)
    for step in range(5):
        inputs, targets = batch(step)
        learner.step((inputs, targets))
        optimizer.zero_grad()
        F.cross_entropy(plain(inputs), targets).backward()
        optimizer.step()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-12, atol=1e-14)
    assert int(model.body[0].num_batches_tracked) == 5


class Block(nn.Module):
    """A stem, a body that is called in some way, a head."""

    def __init__(self, call, body=None):
        super().__init__()
        self.stem, self.head, self.call = nn.Linear(6, 5), nn.Linear(5, 3), call
        self.body = nn.Sequential(nn.Linear(5, 5), *(() if body is None else (body,)), nn.Tanh())

    def forward(self, x):
        return self.head(self.call(self.body, self.stem(x)))


class Accumulating(torch.autograd.Function):
    """Weights get their gradients behind autograd's back, as in the first checkpoints."""

    @staticmethod
    def forward(ctx, body, x, *weights):
        ctx.body = body
        ctx.save_for_backward(x, *weights)
        with torch.no_grad():
            return body(x)

    @staticmethod
    def backward(ctx, slope):
        x = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad():
            ctx.body(x).backward(slope)
        return (None, x.grad, *(None for _ in ctx.saved_tensors[1:]))


class Returning(Accumulating):
    """Weights are arguments, and taken from the module nevertheless."""

    @staticmethod
    def backward(ctx, slope):
        x, *weights = ctx.saved_tensors
        with torch.enable_grad():
            given = (x.detach().requires_grad_(), *weights)
            return (None, *torch.autograd.grad(ctx.body(given[0]), given, slope))


class ReadingByHand(Accumulating):
    """The formula of tanh(W x + b), with the module's weights."""

    @staticmethod
    def backward(ctx, slope):
        x, *_ = ctx.saved_tensors
        layer = ctx.body[0]
        with torch.no_grad():
            inside = slope * (1 - F.linear(x, layer.weight, layer.bias).tanh() ** 2)
            return None, inside @ layer.weight, inside.T @ x, inside.sum(0)


class Handed(Accumulating):
    """A body as a function of its weights: no weight of the module is read."""

    @staticmethod
    def backward(ctx, slope):
        x, *weights = (value.detach().requires_grad_() for value in ctx.saved_tensors)
        names = [name for name, _ in ctx.body.named_parameters()]
        with torch.enable_grad():
            out = torch.func.functional_call(ctx.body, dict(zip(names, weights, strict=True)), (x,))
            return (None, *torch.autograd.grad(out, (x, *weights), slope))


def called_by(function):
    return lambda body, x: function.apply(body, x, *body.parameters())


@pytest.mark.parametrize("meta_step", [False, True])
@pytest.mark.parametrize(
    ("function", "body"),
    [
        (Accumulating, None),
        (Returning, None),
        (ReadingByHand, None),
        (Handed, nn.Dropout(0.4)),
        (Handed, nn.BatchNorm1d(5)),
    ],
)
def test_a_backward_pass_that_goes_back_to_the_module_is_refused(function, body, meta_step):
    model = seeded(lambda: Block(called_by(function), copy.deepcopy(body)))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(MetalossError, match="backward pass runs a part of the model again") as said:
        learner_of(model).step(batch(0), batch(1) if meta_step else None)
    assert "\n" not in str(said.value)
    torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)
    assert all(p.grad is None and isinstance(p, nn.Parameter) for p in model.parameters())


def test_a_backward_pass_that_computes_again_from_what_it_was_given_is_right():
    model = seeded(lambda: Block(called_by(Handed)))
    plain = seeded(lambda: Block(lambda body, x: body(x)))
    learner = learner_of(model)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.5)
    for step in range(3):
        inputs, targets = batch(step)
        learner.step((inputs, targets))
        optimizer.zero_grad()
        F.cross_entropy(plain(inputs), targets).backward()
        optimizer.step()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-12, atol=1e-14)


def test_a_first_batch_that_is_spoiled_is_no_reason():
    model = seeded(lambda: Block(lambda body, x: body(x)))
    inputs, targets = batch(0)
    inputs[0, 0] = torch.nan
    assert not learner_of(model).step((inputs, targets)).taken
