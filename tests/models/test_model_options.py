"""Options and shapes that models take and refuse."""

import dataclasses
import math

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.nn import functional as F

from metaloss.errors import MetalossError
from metaloss.models.cnn import CNNConfig
from metaloss.models.gru import GRUConfig
from metaloss.models.mlp import MLP, MLPConfig
from metaloss.models.options import Activation

from .built_models import MODELS, built, drawn


@pytest.mark.parametrize("name", MODELS)
def test_without_options_there_is_nothing_but_parameters(name):
    model = built(MODELS[name], MODELS[name].Config(), (1, 8, 8))
    assert not list(model.buffers())
    assert not any(isinstance(module, nn.Dropout) for module in model.modules())


@pytest.mark.parametrize("activation", Activation)
def test_activations_by_name(activation):
    reference = {"relu": F.relu, "tanh": torch.tanh, "gelu": F.gelu, "silu": F.silu}
    model = built(MLP, MLPConfig(hidden=[5], activation=activation), (4,)).double()
    inputs = drawn(3, 4)
    w1, b1, w2, b2 = model.parameters()
    expected = reference[activation.value](inputs @ w1.T + b1) @ w2.T + b2
    torch.testing.assert_close(model(inputs), expected)


@pytest.mark.parametrize("name", MODELS)
def test_options_travel_through_omegaconf_and_say_what_they_are(name):
    config = MODELS[name].Config
    node = OmegaConf.structured(config)
    assert OmegaConf.to_object(node) == config()
    assert all(field.metadata["help"] for field in dataclasses.fields(config))


BAD_OPTIONS = [
    (
        MLPConfig,
        {"hidden": []},
        "model.hidden=[]: expected one or more whole numbers, each at least 1",
    ),
    (
        MLPConfig,
        {"hidden": [3, 0]},
        "model.hidden=[3, 0]: expected one or more whole numbers, each at least 1",
    ),
    (MLPConfig, {"dropout": 1.0}, "model.dropout=1.0: expected a number in [0, 1)"),
    (MLPConfig, {"dropout": math.nan}, "model.dropout=nan: expected a number in [0, 1)"),
    (
        CNNConfig,
        {"channels": [1.5]},
        "model.channels=[1.5]: expected one or more whole numbers, each at least 1",
    ),
    (CNNConfig, {"kernel": 4}, "model.kernel=4: expected an odd number"),
    (CNNConfig, {"kernel": -1}, "model.kernel=-1: expected a whole number, at least 1"),
    (CNNConfig, {"dropout": -0.1}, "model.dropout=-0.1: expected a number in [0, 1)"),
    (GRUConfig, {"hidden": 0}, "model.hidden=0: expected a whole number, at least 1"),
    (GRUConfig, {"chunk": 0}, "model.chunk=0: expected a whole number, at least 1"),
    (GRUConfig, {"layers": 0}, "model.layers=0: expected a whole number, at least 1"),
    (GRUConfig, {"dropout": 2}, "model.dropout=2: expected a number in [0, 1)"),
]


@pytest.mark.parametrize(("config", "options", "message"), BAD_OPTIONS)
def test_options_out_of_range_are_named_with_the_range(config, options, message):
    with pytest.raises(MetalossError) as error:
        config(**options)
    assert str(error.value) == message


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [(), (3, 0), (4, -1)])
def test_shapes_that_cannot_be_are_refused(name, shape):
    with pytest.raises(MetalossError, match=rf"^model={name}: input_shape=\(.*\): expected .* or "):
        MODELS[name](MODELS[name].Config(), input_shape=shape, outputs=3)


@pytest.mark.parametrize("name", ["cnn", "gru"])
def test_too_many_dimensions_are_refused(name):
    with pytest.raises(MetalossError) as error:
        MODELS[name](MODELS[name].Config(), input_shape=(1, 2, 3, 4), outputs=3)
    assert str(error.value) == (
        f"model={name}: input_shape=(1, 2, 3, 4): expected 1, 2 or 3 dimensions, each at least 1"
    )


@pytest.mark.parametrize("name", MODELS)
def test_a_model_without_outputs_is_refused(name):
    message = f"^model={name}: outputs=0: expected a whole number, at least 1$"
    with pytest.raises(MetalossError, match=message):
        MODELS[name](MODELS[name].Config(), input_shape=(8,), outputs=0)
