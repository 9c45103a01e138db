"""The mixed engine looks through every network of the literature and sees what autograd sees."""

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from metaloss.inner import SGD, FunctionalModel, InnerProblem
from metaloss.losses import MLPLoss
from metaloss.meta_optimizers.mixed import Mixed
from metaloss.types import Batch, InnerState, Window

from .literature import RICH, built, rows_for

STEPS = 2


def question(name):
    """Return a problem, φ, a state and a window for a small model in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        loss = MLPLoss().double()
    problem = InnerProblem(
        model=FunctionalModel(built(name, *RICH[name]).double()),
        loss=loss,
        task_loss=F.cross_entropy,
        optimizer=SGD(lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4),
    )
    # A loss that teaches something has slopes of the task loss's size.
    phi = {key: 3 * value.detach() for key, value in loss.named_parameters()}
    params, buffers = problem.model.state()
    *batches, meta_batch = (Batch(*rows_for(name, 5, seed=k)) for k in range(STEPS + 1))
    *keys, meta_key = torch.arange(STEPS + 1) * 2**33 + 17
    state = InnerState(params, buffers, problem.optimizer.init(params))
    return problem, phi, state, Window(tuple(batches), tuple(keys), meta_batch, meta_key)


def by_double_backward(problem, phi, state, window):
    """One graph through all steps, written out."""
    phi = {name: value.clone().requires_grad_() for name, value in phi.items()}
    params, buffers, optimizer = state
    params = {name: value.clone().requires_grad_() for name, value in params.items()}
    for batch, key in zip(window.batches, window.keys, strict=True):
        outputs, buffers = problem.model(params, buffers, batch.inputs, key=key)
        loss = functional_call(problem.loss, phi, (outputs, batch.targets))
        grads = torch.autograd.grad(loss, params.values(), create_graph=True)
        grads = dict(zip(params, grads, strict=True))
        params, optimizer = problem.optimizer.update(grads, optimizer, params)
    outputs, _ = problem.model(params, buffers, window.meta_batch.inputs, key=window.meta_key)
    measured = F.cross_entropy(outputs, window.meta_batch.targets)
    return dict(zip(phi, torch.autograd.grad(measured, phi.values()), strict=True))


# The first forward-mode pass of a process makes torch script its own decompositions.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is:FutureWarning")
@pytest.mark.parametrize("name", RICH)
def test_mixed_equals_double_backward(name):
    asked = question(name)
    expected = by_double_backward(*asked)
    found = Mixed().meta_gradient(*asked).gradient
    size = torch.stack([value.norm() for value in expected.values()]).norm()
    assert size > 1e-4
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-9, atol=1e-9 * float(size))


# --------------------------------------------------------------------------- what that rests on


@pytest.mark.parametrize("name", RICH)
def test_everything_that_owns_parameters_can_be_reset(name):
    model, fresh = built(name, *RICH[name]), built(name, *RICH[name], seed=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for module in model.modules():
            if next(module.parameters(recurse=False), None) is not None:
                module.reset_parameters()
    for ours, theirs in zip(model.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", RICH)
def test_nothing_works_in_place(name):
    modules = list(built(name, *RICH[name]).modules())
    assert not any(getattr(module, "inplace", False) for module in modules)
    assert len(modules) > 5


@pytest.mark.parametrize("name", RICH)
def test_members_stacked_by_vmap_equal_each_alone(name):
    """As ``seeds=N`` trains them: batch statistics, running averages, dropout by key."""
    model = FunctionalModel(built(name, *RICH[name]).double())
    inputs, _ = rows_for(name, 4)
    states = [model.state(built(name, *RICH[name], seed=seed).double()) for seed in (1, 2)]
    keys = torch.tensor([5, 6])
    params, buffers = (
        {key: torch.stack([state[part][key] for state in states]) for key in states[0][part]}
        for part in (0, 1)
    )

    def forward(params, buffers, key):
        return model(params, buffers, inputs, key=key)

    each = [forward(*state, key) for state, key in zip(states, keys, strict=True)]
    assert model.foreign_randomness is False
    outputs, moved = torch.vmap(forward)(params, buffers, keys)
    for index, (alone, moved_alone) in enumerate(each):
        torch.testing.assert_close(outputs[index], alone)
        for key, value in moved_alone.items():
            torch.testing.assert_close(moved[key][index], value)
    assert (outputs[0] - outputs[1]).abs().max() > 1e-6


def test_dropout_is_torchs_own_module_where_it_is_asked_for():
    for name, (options, shape) in RICH.items():
        kinds = [type(module) for module in built(name, options, shape).modules()]
        asked = any("dropout" in option and rate > 0 for option, rate in options.items())
        assert (nn.Dropout in kinds) == asked, name
