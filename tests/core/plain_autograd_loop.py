"""One segment after another by plain autograd: what the core is compared with."""

import torch
from torch.func import functional_call
from torch.nn import functional as F

from metaloss.contracts import Progress
from metaloss.losses import MLPLoss
from metaloss.losses.mlp import MLPLossConfig

from .small_setups import blobs, net, setup


def double_setup(*words):
    """Return a set-up in float64 without dropout, so that a loop by hand is exact."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        loss = MLPLoss(MLPLossConfig(hidden=[6])).double()
    words = (
        "start=keep",
        "inner.lr=0.3",
        "inner.momentum=0.5",
        "meta_optimizer.rule=sgd",
        "meta_optimizer.lr=0.5",
        "meta_optimizer.offline_lr=0.5",
        *words,
    )
    task = blobs(dtype=torch.float64)
    return setup(*words, task=task, model=net().double(), loss=loss)


def first_state(parts):
    phi = {name: value.detach().clone() for name, value in parts.loss.named_parameters()}
    return parts.state(parts.advance.fresh("train", 0), phi)


def run(parts, steps, state=None, progress=None):
    """Follow the schedule as the trainer does; yield the progress and state after each plan."""
    state, progress = state or first_state(parts), progress or Progress()
    while (plan := parts.schedule.plan(progress, steps)) is not None:
        state = parts.advance(state, plan, progress)
        progress = progress.after(plan)
        yield progress, state


class Hand:
    """θ, its momentum and φ, moved by plain autograd: the textbook's two loops."""

    def __init__(self, parts):
        self.streams = parts.advance.streams
        self.net, self.loss = parts.model, parts.loss
        self.phi = {
            name: value.detach().clone().requires_grad_()
            for name, value in parts.loss.named_parameters()
        }
        self.outer = torch.optim.SGD(list(self.phi.values()), lr=0.5)
        self.theta, self.momentum = self.weights(parts.advance.fresh("train", 0))

    def weights(self, inner):
        return dict(inner.params), {name: torch.zeros_like(p) for name, p in inner.params.items()}

    def step(self, batch):
        """Take an inner step with its graph."""
        theta = {name: p.requires_grad_(True) for name, p in self.theta.items()}
        outputs = functional_call(self.net, theta, (batch.inputs,))
        loss = functional_call(self.loss, self.phi, (outputs, batch.targets))
        slopes = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
        self.momentum = {n: 0.5 * self.momentum[n] + g for n, g in zip(theta, slopes, strict=True)}
        self.theta = {name: theta[name] - 0.3 * self.momentum[name] for name in theta}

    def task_loss(self, batch):
        return F.cross_entropy(
            functional_call(self.net, self.theta, (batch.inputs,)), batch.targets
        )

    def pulls(self):
        """Return what is added to the meta-gradient: here, nothing."""
        return [0.0] * len(self.phi)

    def move_phi(self, batch, earlier=0.0):
        """Move φ by the gradient of the task loss through all steps since :meth:`forget`.

        ``earlier``: the weighted task losses after some of these steps.
        """
        task = self.task_loss(batch) + earlier
        slopes = torch.autograd.grad(task, list(self.phi.values()))
        assert sum(slope.abs().sum() for slope in slopes) > 0
        for value, slope, more in zip(self.phi.values(), slopes, self.pulls(), strict=True):
            value.grad = slope + more
        self.outer.step()

    def meta(self, number):
        return self.streams["meta/train"][number]

    def forget(self):
        self.theta = {name: p.detach() for name, p in self.theta.items()}
        self.momentum = {name: m.detach() for name, m in self.momentum.items()}


def same(state, hand, rtol=1e-9):
    for found, expected in ((state.inner.params, hand.theta), (state.phi, hand.phi)):
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value.detach(), rtol=rtol, atol=1e-3 * rtol)
