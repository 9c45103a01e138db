from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jvp, vmap
from torch.nn import functional as F

from metaloss import registry
from metaloss.inner.model.functional import FunctionalModel
from metaloss.models.cnn import CNN, CNNConfig
from metaloss.models.gru import GRU, GRUConfig
from metaloss.models.linear import Linear, LinearConfig
from metaloss.models.mlp import MLP, MLPConfig
from metaloss.models.options import Activation

from .built_models import MODELS, built, drawn

TASK_SHAPES = {"digits": ((1, 8, 8), 10), "mnist1d": ((40,), 10), "diabetes": ((10,), 1)}


SHAPES = [(40,), (3, 12), (12, 3), (1, 8, 8), (2, 5, 7), (1, 1, 1)]


# Small, with everything on that can be on: (class, options, shape of a row).
RICH = {
    "linear": (Linear, LinearConfig(), (2, 3)),
    "mlp": (
        MLP,
        MLPConfig(hidden=[5, 4], activation=Activation.gelu, dropout=0.3, batch_norm=True),
        (6,),
    ),
    "mlp_silu": (MLP, MLPConfig(hidden=[4], activation=Activation.silu), (6,)),
    "cnn_1d": (
        CNN,
        CNNConfig(channels=[2, 3], activation=Activation.tanh, dropout=0.3, batch_norm=True),
        (2, 7),
    ),
    "cnn_2d": (
        CNN,
        CNNConfig(channels=[2, 2], activation=Activation.tanh, dropout=0.3, batch_norm=True),
        (1, 5, 4),
    ),
    "gru": (GRU, GRUConfig(hidden=3, layers=2, dropout=0.3), (4, 2)),
}


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("task", TASK_SHAPES)
def test_every_model_takes_every_built_in_task(name, task):
    shape, outputs = TASK_SHAPES[task]
    part = registry.get("model", name)
    assert part.cls is MODELS[name]
    with torch.random.fork_rng(devices=[]):
        model = part.build(part.config_class(), input_shape=shape, outputs=outputs)
    result = model(torch.zeros(6, *shape))
    assert result.shape == (6, outputs)
    assert result.requires_grad


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_up_to_three_dimensions(name, shape):
    model = built(MODELS[name], MODELS[name].Config(), shape)
    assert model(torch.zeros(2, *shape)).shape == (2, 3)


def test_linear_is_the_linear_function():
    model = built(Linear, LinearConfig(), (2, 3)).double()
    inputs = drawn(5, 2, 3)
    expected = inputs.reshape(5, 6) @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model(inputs), expected)
    assert count(built(Linear, LinearConfig(bias=False), (2, 3))) == 18


def test_mlp_is_the_composition_of_its_layers():
    model = built(MLP, MLPConfig(hidden=[5, 4], activation=Activation.tanh), (6,)).double()
    inputs = drawn(7, 6)
    w1, b1, w2, b2, w3, b3 = model.parameters()
    expected = torch.tanh(torch.tanh(inputs @ w1.T + b1) @ w2.T + b2) @ w3.T + b3
    torch.testing.assert_close(model(inputs), expected)


def test_cnn_is_convolution_activation_pooling_and_a_head():
    model = built(CNN, CNNConfig(channels=[4], kernel=5), (2, 6, 9)).double()
    inputs = drawn(3, 2, 6, 9)
    weight, bias, head, head_bias = model.parameters()
    hidden = F.avg_pool2d(F.relu(F.conv2d(inputs, weight, bias, padding=2)), 2)
    assert hidden.shape == (3, 4, 3, 4)
    torch.testing.assert_close(model(inputs), hidden.reshape(3, -1) @ head.T + head_bias)


def test_cnn_over_a_signal_has_one_channel():
    model = built(CNN, CNNConfig(channels=[4]), (9,)).double()
    inputs = drawn(3, 9)
    weight, bias, head, head_bias = model.parameters()
    hidden = F.avg_pool1d(F.relu(F.conv1d(inputs[:, None], weight, bias, padding=1)), 2)
    torch.testing.assert_close(model(inputs), hidden.reshape(3, -1) @ head.T + head_bias)


def mlp_size(widths, batch_norm=False):
    linear = sum(i * o + o for i, o in pairwise(widths))
    return linear + (sum(2 * width for width in widths[1:-1]) if batch_norm else 0)


@pytest.mark.parametrize(
    ("cls", "config", "shape", "expected"),
    [
        (Linear, LinearConfig(), (1, 8, 8), 64 * 10 + 10),
        (MLP, MLPConfig(), (1, 8, 8), mlp_size([64, 100, 100, 10])),
        (MLP, MLPConfig(hidden=[7], batch_norm=True), (40,), mlp_size([40, 7, 10], True)),
        # Two convolutions, then 8 → 4 → 2 in both directions.
        (CNN, CNNConfig(), (1, 8, 8), (9 + 1) * 16 + (9 * 16 + 1) * 32 + (32 * 2 * 2 + 1) * 10),
        (CNN, CNNConfig(), (40,), (3 + 1) * 16 + (3 * 16 + 1) * 32 + (32 * 10 + 1) * 10),
        (
            CNN,
            CNNConfig(channels=[4, 4, 4], kernel=1, batch_norm=True),
            (3, 2, 9),
            (3 + 1) * 4 + 2 * (4 + 1) * 4 + 3 * 2 * 4 + (4 * 1 * 1 + 1) * 10,
        ),
        (GRU, GRUConfig(hidden=16), (40,), 3 * 16 * (1 + 16 + 2) + 17 * 10),
        (
            GRU,
            GRUConfig(hidden=16, layers=2),
            (1, 8, 8),
            3 * 16 * (8 + 16 + 2) + 3 * 16 * (16 + 16 + 2) + 17 * 10,
        ),
    ],
)
def test_parameter_counts_in_closed_form(cls, config, shape, expected):
    assert count(built(cls, config, shape, outputs=10)) == expected


def functional(case):
    """Return θ ↦ loss for a model with everything on: own masks, batch statistics."""
    cls, config, shape = RICH[case]
    model = FunctionalModel(built(cls, config, shape).double())
    params, buffers = model.state()
    inputs, targets = drawn(6, *shape), torch.arange(6) % 3
    key = torch.tensor(5)

    def loss(at):
        outputs, _ = model(at, buffers, inputs, key=key)
        return F.cross_entropy(outputs, targets)

    return loss, params


# The first forward-mode pass of a process makes torch script its own decompositions.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is:FutureWarning")
@pytest.mark.parametrize("case", RICH)
def test_forward_over_reverse_equals_double_backward(case):
    loss, params = functional(case)
    tangent = {name: drawn(*value.shape, seed=9) for name, value in params.items()}
    _, forward = jvp(grad(loss), (params,), (tangent,))

    def directional(at):
        return sum((value * tangent[name]).sum() for name, value in grad(loss)(at).items())

    reverse = grad(directional)(params)
    assert max(value.abs().max() for value in reverse.values()) > 1e-3
    for name, value in reverse.items():
        torch.testing.assert_close(forward[name], value, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("case", RICH)
def test_gradients_of_both_orders_equal_finite_differences(case):
    loss, params = functional(case)
    names = list(params)

    def of_values(*values):
        return loss(dict(zip(names, values, strict=True)))

    leaves = [value.requires_grad_() for value in params.values()]
    assert torch.autograd.gradcheck(of_values, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(of_values, leaves, fast_mode=True)


@pytest.mark.parametrize("case", ["linear", "mlp_silu", "gru", "cnn_1d", "cnn_2d"])
def test_a_population_in_evaluation_mode_equals_its_members(case):
    cls, config, shape = RICH[case]
    model = built(cls, config, shape).double().eval()
    members = [
        {name: drawn(*value.shape, seed=s) for name, value in model.named_parameters()}
        for s in range(3)
    ]
    inputs = drawn(4, *shape)
    together = vmap(lambda params: functional_call(model, params, (inputs,)))(
        {name: torch.stack([member[name] for member in members]) for name in members[0]}
    )
    for row, member in zip(together, members, strict=True):
        torch.testing.assert_close(row, functional_call(model, member, (inputs,)))


@pytest.mark.parametrize("case", RICH)
def test_everything_that_owns_parameters_can_be_reset(case):
    cls, config, shape = RICH[case]
    model = built(cls, config, shape)
    fresh = built(cls, config, shape, seed=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for module in model.modules():
            if next(module.parameters(recurse=False), None) is not None:
                module.reset_parameters()
    assert count(model) > 0
    for ours, theirs in zip(model.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("case", RICH)
def test_dropout_and_batch_norm_are_torchs_own_modules(case):
    cls, config, shape = RICH[case]
    kinds = [type(module) for module in built(cls, config, shape).modules()]
    assert (nn.Dropout in kinds) == (getattr(config, "dropout", 0) > 0)
    norms = {nn.BatchNorm1d, nn.BatchNorm2d} & set(kinds)
    assert bool(norms) == getattr(config, "batch_norm", False)
    for module in built(cls, config, shape).modules():
        assert not getattr(module, "inplace", False)


@pytest.mark.parametrize("case", [name for name in RICH if name not in ("linear", "mlp_silu")])
def test_dropout_acts_in_train_mode_alone(case):
    cls, config, shape = RICH[case]
    model = built(cls, config, shape).double()
    inputs = drawn(16, *shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert not torch.equal(model(inputs), model(inputs))
        model.eval()
        assert torch.equal(model(inputs), model(inputs))
