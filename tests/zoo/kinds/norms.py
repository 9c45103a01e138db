"""Normalization of activations and of weights."""

import warnings

import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from ..kind import Expected, Group, Net, Truth, between, head, pooled, real, set_up

GROUP = Group("Normalization")
add = GROUP.add

add("BatchNorm1d", lambda: between(nn.BatchNorm1d(6), nn.Tanh()), real(4))
add(
    "BatchNorm2d",
    lambda: pooled(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), width=4),
    real(2, 5, 5),
)
add(
    "BatchNorm3d",
    lambda: pooled(nn.Conv3d(1, 4, 2), nn.BatchNorm3d(4), nn.Tanh(), width=4),
    real(1, 3, 3, 3),
)
add(
    "BatchNorm1d, momentum=None",
    lambda: between(nn.BatchNorm1d(6, momentum=None), nn.Tanh()),
    real(4),
    traces=None,
)
add(
    "BatchNorm1d, no running statistics",
    lambda: between(nn.BatchNorm1d(6, track_running_stats=False), nn.Tanh()),
    real(4),
)
add(
    "BatchNorm1d, twice in a pass",
    lambda: Net(
        lambda m, x: m.head(torch.tanh(m.norm(m.body(x)) + m.norm(m.body(-x)))),
        body=nn.Linear(4, 6),
        norm=nn.BatchNorm1d(6),
        head=head(6),
    ),
    real(4),
)
add(
    "BatchNorm in evaluation mode",
    lambda: set_up(
        between(nn.BatchNorm1d(6), nn.Tanh()),
        lambda m: m[1].eval(),
        lambda m: m[1].running_mean.normal_(),
    ),
    real(4),
)
add(
    "BatchNorm in evaluation mode, frozen",
    lambda: set_up(
        between(nn.BatchNorm1d(6), nn.Tanh()),
        lambda m: m[1].eval().requires_grad_(False),
        lambda m: m[1].running_var.uniform_(1, 2),
    ),
    real(4),
    traces=None,
)
add(
    "a whole model in evaluation mode",
    lambda: between(nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Tanh()).eval(),
    real(4),
)
add(
    "InstanceNorm2d",
    lambda: pooled(nn.Conv2d(2, 4, 2), nn.InstanceNorm2d(4, affine=True), nn.ReLU(), width=4),
    real(2, 4, 4),
)
add(
    "InstanceNorm1d, running statistics",
    lambda: nn.Sequential(
        nn.Conv1d(2, 4, 2),
        nn.InstanceNorm1d(4, affine=True, track_running_stats=True),
        nn.Tanh(),
        nn.Flatten(),
        head(20),
    ),
    real(2, 6),
)
add("LayerNorm", lambda: between(nn.LayerNorm(6), nn.GELU()), real(4))
add("RMSNorm", lambda: between(nn.RMSNorm(6), nn.GELU()), real(4))
add(
    "GroupNorm",
    lambda: pooled(nn.Conv2d(2, 4, 2), nn.GroupNorm(2, 4), nn.ReLU(), width=4),
    real(2, 4, 4),
)
add(
    "LocalResponseNorm",
    lambda: pooled(nn.Conv2d(2, 4, 2), nn.LocalResponseNorm(2), nn.Tanh(), width=4),
    real(2, 4, 4),
)
add(
    "CrossMapLRN2d",
    lambda: pooled(nn.Conv2d(2, 4, 2), nn.CrossMapLRN2d(2), nn.Tanh(), width=4),
    real(2, 4, 4),
    truth=Truth.differences,
    expected=Expected.differences,
    traces=None,
)
add(
    "normalize, cosine classifier",
    lambda: Net(
        lambda m, x: (
            5 * nn.functional.normalize(m.body(x)) @ nn.functional.normalize(m.head.weight).T
        ),
        body=nn.Linear(4, 6),
        head=nn.Linear(6, 3, bias=False),
    ),
    real(4),
)
add(
    "weight_norm",
    lambda: between(nn.Tanh(), parametrizations.weight_norm(nn.Linear(6, 6)), nn.Tanh()),
    real(4),
    truth=Truth.differences,
    traces=None,
)


def _old_weight_norm():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return between(nn.Tanh(), nn.utils.weight_norm(nn.Linear(6, 6)), nn.Tanh())


add(
    "weight_norm, the old one with hooks",
    _old_weight_norm,
    real(4),
    truth=Truth.differences,
    traces=None,
)
add(
    "spectral_norm",
    lambda: between(nn.Tanh(), parametrizations.spectral_norm(nn.Linear(6, 6)), nn.Tanh()),
    real(4),
    truth=Truth.graph,
    expected=Expected.backward,
    traces=None,
)


def _old_spectral_norm():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return between(nn.Tanh(), nn.utils.spectral_norm(nn.Linear(6, 6)), nn.Tanh())


add(
    "spectral_norm, the old one with hooks",
    _old_spectral_norm,
    real(4),
    # Its directions are constants to backward, and move with the weights.
    truth=Truth.graph,
    expected=Expected.backward,
    traces=None,
)
add(
    "orthogonal",
    lambda: between(nn.Tanh(), parametrizations.orthogonal(nn.Linear(6, 6)), nn.Tanh()),
    real(4),
    traces=None,
)


class Symmetric(nn.Module):
    """A parametrization."""

    def forward(self, weight):
        return weight.triu() + weight.triu(1).mT


def _symmetric():
    layer = nn.Linear(6, 6)
    parametrize.register_parametrization(layer, "weight", Symmetric())
    return between(nn.Tanh(), layer, nn.Tanh())


add("a parametrization of one's own", _symmetric, real(4))


class Standardized(nn.Conv2d):
    """Weight standardization."""

    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        weight = weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5)
        return self._conv_forward(x, weight, self.bias)


add(
    "weight standardization",
    lambda: pooled(Standardized(2, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), width=4),
    real(2, 5, 5),
)
add(
    "pruned weights",
    lambda: set_up(between(nn.Tanh()), lambda m: prune.random_unstructured(m[0], "weight", 0.4)),
    real(4),
)
