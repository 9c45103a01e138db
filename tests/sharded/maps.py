"""Functions of θ that cross processes, and what they must equal: the same without crossing."""

import torch
from torch import nn
from torch.func import functional_call, grad

from metaloss.core.distributed.launch import joined
from metaloss.inner.forward_mode import jvp
from metaloss.inner.model.batch_norm import shared_batch_norms
from metaloss.inner.processes.exchange import copy, gather

_ROWS = 7  # no two processes have as many


def _draw(*shape, seed):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=draw, dtype=torch.float64)


def crossing(folder):
    """Derivatives of a function whose middle is rows: reverse, forward, and both twice."""
    theta, direction = {"w": _draw(3, 4, seed=0)}, {"w": _draw(3, 4, seed=1)}
    inputs = _draw(_ROWS, 3, seed=2)
    with joined("cpu") as ranks:

        def value(params):
            if ranks.size == 1:
                outputs = torch.tanh(inputs @ params["w"])
            else:
                share = ranks.share(_ROWS)
                rows = inputs[share.first : share.first + share.rows]
                outputs = gather(torch.tanh(rows @ copy(params, ranks)["w"]), share)
            # No mean over rows: every row's share depends on all others.
            return outputs.cumsum(0).square().prod(1).sum().sin()

        leaf = theta["w"].clone().requires_grad_()
        (slope,) = torch.autograd.grad(value({"w": leaf}), leaf, create_graph=True)
        (curved,) = torch.autograd.grad((slope * direction["w"]).sum(), leaf, create_graph=True)
        (third,) = torch.autograd.grad(curved.square().sum(), leaf)
        _, forward = jvp(value, (theta,), (direction,))
        _, over = jvp(grad(value), (theta,), (direction,))
        _, twice = jvp(lambda p: jvp(value, (p,), (direction,))[1], (theta,), (direction,))
    return {
        "slope": slope.detach(),
        "curved": curved.detach(),
        "third": third,
        "forward": forward,
        "forward over reverse": over["w"],
        "forward over forward": twice,
    }


def _norm(layer, shape, dtype=torch.float64, offset=0.0):
    """Return outputs, buffers and derivatives of a BatchNorm layer after two batches."""
    layer = layer.to(dtype)
    with joined("cpu") as ranks:
        share = ranks.share(_ROWS) if ranks.size > 1 else None
        if share is not None:
            for shared in shared_batch_norms(layer):
                shared.share = share
                shared.norm.forward = shared.forward
        theta = {name: p.detach() + 0.3 for name, p in layer.named_parameters()}
        theta["x"] = _draw(_ROWS, *shape, seed=5).to(dtype) * 2 + offset
        direction = {
            name: _draw(*p.shape, seed=index).to(dtype)
            for index, (name, p) in enumerate(theta.items())
        }
        buffers = {name: b.clone() for name, b in layer.named_buffers()}

        def outputs(params):
            x = params["x"]
            given = {name: p for name, p in params.items() if name != "x"}
            # Modules write into their buffers: they get copies, and are called twice.
            given |= {name: value.clone() for name, value in buffers.items()}
            if share is None:
                functional_call(layer, given, (2 * x,))
                return functional_call(layer, given, (x,)), given
            own = copy({**params}, ranks)
            given |= {name: own[name] for name in own if name != "x"}
            rows = own["x"][share.first : share.first + share.rows]
            functional_call(layer, given, (2 * rows,))
            return gather(functional_call(layer, given, (rows,)), share), given

        def value(params):
            return (outputs(params)[0] ** 3).cumsum(0).sin().sum()

        leaves = {name: p.clone().requires_grad_() for name, p in theta.items()}
        slopes = torch.autograd.grad(value(leaves), leaves.values(), create_graph=True)
        inner = sum((s * d).sum() for s, d in zip(slopes, direction.values(), strict=True))
        curved = torch.autograd.grad(inner, leaves.values())
        _, over = jvp(grad(value), (theta,), (direction,))
        found, given = outputs(theta)
    return {
        "outputs": found,
        **{f"buffer {name}": given[name] for name in buffers},
        **{f"slope {name}": s.detach() for name, s in zip(theta, slopes, strict=True)},
        **{f"curved {name}": c for name, c in zip(theta, curved, strict=True)},
        **{f"over {name}": value for name, value in over.items()},
    }


def norm_1d(folder):
    return _norm(nn.BatchNorm1d(3), (3,))


def norm_2d(folder):
    return _norm(nn.BatchNorm2d(3, momentum=None), (3, 2, 5))


def norm_plain(folder):
    return _norm(nn.BatchNorm1d(3, affine=False, track_running_stats=False), (3, 4))


def norm_far(folder):
    """Numbers whose mean is large beside their spread, in single precision."""
    found = _norm(nn.BatchNorm1d(2), (2,), dtype=torch.float32, offset=1000.0)
    return {name: found[name] for name in ("outputs", "buffer running_mean", "buffer running_var")}
