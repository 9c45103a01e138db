"""The network of the ``mlp`` loss as Python source."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

_NETWORK = """
from torch.nn import functional as F

# The weight and the bias of each layer.
LAYERS = [
{layers}
]


def network(t, p):
    hidden = torch.stack((t, p), -1)
    for place, (weight, bias) in enumerate(LAYERS):
        hidden = F.linear(hidden, weight.to(p), None if bias is None else bias.to(p))
        if place < len(LAYERS) - 1:
            hidden = activation(hidden)
    return {output}


def activation(x):
    return {activation}
"""
# The formula of `smooth_leaky_relu`.
_ACTIVATIONS = {
    "smooth_leaky_relu": (
        "(x.clamp(min=0) - torch.log(torch.sigmoid({beta!r} * x.abs())) / {beta!r})"
        " * (1 - {gamma!r}) + {gamma!r} * x"
    ),
    "relu": "torch.relu(x)",
    "tanh": "torch.tanh(x)",
    "silu": "F.silu(x)",
}
_OUTPUTS = {"linear": "hidden.squeeze(-1)", "softplus": "F.softplus(hidden.squeeze(-1))"}


def network_text(
    given: Iterable[nn.Module], activation: str, output: str, *, beta: float, gamma: float
) -> str:
    """Return the source of a function ``network(t, p)`` with the layers given, to the last bit."""
    layers = []
    for layer in given:
        assert isinstance(layer, nn.Linear)
        # Exact in float64, which every type of φ fits into.
        pair = [
            "None" if value is None else f"torch.tensor({value.tolist()}, dtype=torch.float64)"
            for value in (layer.weight, layer.bias)
        ]
        layers.append(f"    ({', '.join(pair)}),")
    return _NETWORK.format(
        layers="\n".join(layers),
        output=_OUTPUTS[output],
        activation=_ACTIVATIONS[activation].format(beta=beta, gamma=gamma),
    )
