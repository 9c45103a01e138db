"""The written-out layer against ``nn.GRU``, which is right but cannot be batched by vmap."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from metaloss.errors import MetalossError
from metaloss.models.gru import GRU, GRUConfig, GRULayer


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pair(features=3, hidden=5, layers=1):
    """Return torch's GRU and our layers with the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        reference = nn.GRU(features, hidden, layers, batch_first=True).double()
        ours = [GRULayer(features if k == 0 else hidden, hidden).double() for k in range(layers)]
    for k, layer in enumerate(ours):
        layer.load_state_dict(
            {name: getattr(reference, f"{name}_l{k}") for name, _ in layer.named_parameters()}
        )
    return reference, nn.Sequential(*ours)


@pytest.mark.parametrize("layers", [1, 3])
def test_states_equal_torchs(layers):
    reference, ours = pair(layers=layers)
    steps = drawn(4, 7, 3)
    torch.testing.assert_close(ours(steps), reference(steps)[0], rtol=1e-12, atol=1e-13)


def test_first_and_second_derivatives_equal_torchs():
    reference, ours = pair()
    steps = drawn(4, 7, 3)
    direction = drawn(4, 7, 5, seed=1)

    def second_order(model):
        outputs = model(steps)
        outputs = outputs[0] if isinstance(outputs, tuple) else outputs
        values = list(model.parameters())
        first = torch.autograd.grad((outputs * direction).sum(), values, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), values)
        return first, second

    for of_reference, of_ours in zip(second_order(reference), second_order(ours), strict=True):
        assert min(value.abs().max() for value in of_reference) > 1e-3
        for expected, value in zip(of_reference, of_ours, strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-11)


def test_fresh_parameters_are_torchs_for_the_same_random_state():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        reference = nn.GRU(3, 5)
        torch.manual_seed(3)
        ours = GRULayer(3, 5)
    assert [name for name, _ in ours.named_parameters()] == [
        name.removesuffix("_l0") for name, _ in reference.named_parameters()
    ]
    for value, expected in zip(ours.parameters(), reference.parameters(), strict=True):
        assert torch.equal(value, expected)


def test_a_population_of_gradients():
    """What ``nn.GRU`` refuses."""
    layer = GRULayer(3, 5).double()
    steps = drawn(4, 6, 3)
    members = [
        {name: drawn(*v.shape, seed=s) for name, v in layer.named_parameters()} for s in (1, 2)
    ]

    def loss(params):
        return functional_call(layer, params, (steps,)).square().sum()

    together = vmap(grad(loss))(
        {name: torch.stack([member[name] for member in members]) for name in members[0]}
    )
    for index, member in enumerate(members):
        for name, value in grad(loss)(member).items():
            torch.testing.assert_close(together[name][index], value)


def test_a_picture_is_read_row_by_row():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GRU(GRUConfig(hidden=4), input_shape=(2, 5, 3), outputs=2).double()
    inputs = drawn(6, 2, 5, 3)
    rows = torch.stack([inputs[:, :, h].reshape(6, 6) for h in range(5)], dim=1)
    expected = model.head(model.layers[0](rows)[:, -1])
    torch.testing.assert_close(model(inputs), expected)


def test_a_signal_is_read_value_by_value():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GRU(GRUConfig(hidden=4), input_shape=(7,), outputs=2).double()
    inputs = drawn(6, 7)
    expected = model.head(model.layers[0](inputs[..., None])[:, -1])
    torch.testing.assert_close(model(inputs), expected)


def test_a_chunk_of_a_sequence_is_one_step():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        chunked = GRU(GRUConfig(hidden=4, chunk=3), input_shape=(12,), outputs=2).double()
        rows = torch.randn(5, 12, dtype=torch.float64)
    as_rows = GRU(GRUConfig(hidden=4), input_shape=(4, 3), outputs=2).double()
    as_rows.load_state_dict(chunked.state_dict())
    torch.testing.assert_close(chunked(rows), as_rows(rows.reshape(5, 4, 3)), rtol=0, atol=0)


def test_a_chunk_must_divide_the_sequence():
    with pytest.raises(MetalossError, match=r"model\.chunk=5: expected a divisor of .* 12"):
        GRU(GRUConfig(hidden=4, chunk=5), input_shape=(12,), outputs=2)
