"""The model may run in bfloat16; the loss, which is differentiated twice, does not."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from metaloss.inner import SGD, FunctionalModel, InnerProblem
from metaloss.losses import MLPLoss
from metaloss.losses.mlp import MLPLossConfig
from metaloss.meta_optimizers.mixed import Mixed
from metaloss.starts.imitate import Imitate, imitate
from metaloss.types import Batch, InnerState, Window

# A width that no tensor of the model has.
LOSS_WIDTH = 37


def conv_net():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 16, 3),
    )


@pytest.fixture(scope="module")
def answer():
    """The meta-gradient of an imitation of cross-entropy, in a type and with an autocast."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module, loss = conv_net(), MLPLoss(MLPLossConfig(hidden=[LOSS_WIDTH]))
        imitate(loss, F.cross_entropy, 3, config=Imitate(steps=300))
        inputs, targets = torch.randn(4, 32, 1, 8, 8), torch.randint(3, (4, 32))

    def answered(unroll, dtype, autocast=None):
        problem = InnerProblem(
            model=FunctionalModel(copy.deepcopy(module).to(dtype), autocast=autocast),
            loss=copy.deepcopy(loss).to(dtype),
            task_loss=F.cross_entropy,
            optimizer=SGD(lr=0.05, momentum=0.5),
        )
        params, buffers = problem.model.state()
        state = InnerState(params, buffers, problem.optimizer.init(params))
        batches = [Batch(x.to(dtype), y) for x, y in zip(inputs, targets, strict=True)]
        key = torch.tensor(0)
        window = Window(tuple(batches[:unroll]), (key,) * unroll, batches[-1], key)
        phi = {name: value.detach() for name, value in problem.loss.named_parameters()}
        return Mixed().meta_gradient(problem, phi, state, window)

    return answered


@pytest.mark.parametrize("unroll", [1, 3])
def test_bfloat16_points_where_double_precision_does(unroll, answer):
    found, single, expected = (
        torch.cat([value.flatten().double() for value in answer(unroll, *kind).gradient.values()])
        for kind in ((torch.float32, torch.bfloat16), (torch.float32,), (torch.float64,))
    )
    assert expected.norm() > 1e-6
    assert (single - expected).norm() < 1e-3 * expected.norm() < (found - expected).norm()
    assert F.cosine_similarity(found, expected, dim=0) > 0.9


class Types(TorchDispatchMode):
    """Remembers the types of floating-point tensors: of those of the loss's width, and of all."""

    def __init__(self):
        super().__init__()
        self.of_loss, self.of_all = set(), set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for leaf in pytree.tree_leaves((args, kwargs, out)):
            if isinstance(leaf, torch.Tensor) and leaf.is_floating_point():
                self.of_all.add(leaf.dtype)
                if LOSS_WIDTH in leaf.shape:
                    self.of_loss.add(leaf.dtype)
        return out


@pytest.mark.parametrize("unroll", [1, 3])
def test_the_loss_and_its_meta_gradient_are_computed_in_single_precision(unroll, answer):
    with Types() as seen:
        result = answer(unroll, torch.float32, torch.bfloat16)
    assert torch.bfloat16 in seen.of_all
    assert seen.of_loss == {torch.float32}
    leaves = pytree.tree_leaves((result.gradient, result.state.params, tuple(result.losses)))
    assert {leaf.dtype for leaf in leaves} == {torch.float32}
