"""Models under autocast and with channels last."""

import functools

import pytest
import torch
from torch import nn

from metaloss.inner import FunctionalModel
from metaloss.inner.forward_mode import jvp
from metaloss.inner.model.wide_norms import with_wide_norms

from .seeded_modules import inputs, seeded


def test_autocast_computes_in_bfloat16_and_returns_the_parameters_type():
    module = seeded(lambda: nn.Linear(32, 4)).float()
    x = inputs(6, 32).float()
    model = FunctionalModel(module, autocast=torch.bfloat16)
    params, buffers = model.state()
    outputs, _ = model(params, buffers, x)
    assert outputs.dtype == torch.float32
    rounded = outputs.to(torch.bfloat16).float()
    assert torch.equal(outputs, rounded)
    exact, _ = model(params, buffers, x, train=False)
    assert not torch.equal(exact, outputs)
    torch.testing.assert_close(exact, outputs, rtol=0.05, atol=0.05)


NORMS = {
    "batch": lambda: nn.BatchNorm2d(6),
    "batch, frozen": lambda: nn.BatchNorm2d(6).eval(),
    "batch, no weights": lambda: nn.BatchNorm2d(6, affine=False),
    "instance": lambda: nn.InstanceNorm2d(6, affine=True),
    "group": lambda: nn.GroupNorm(2, 6),
}


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_forward_mode_goes_through_normalisations_under_autocast(norm, shared):
    module = seeded(
        lambda: nn.Sequential(nn.Conv2d(2, 6, 3), NORMS[norm](), nn.ReLU(), nn.Conv2d(6, 2, 2))
    ).float()
    x = inputs(8, 2, 6, 6).float()
    moved = {}
    for kind in (None, torch.bfloat16):
        model = FunctionalModel(module, autocast=kind, shared=shared)
        params, buffers = model.state()
        direction = {
            name: torch.linspace(-1, 1, value.numel()).view(value.shape)
            for name, value in params.items()
        }
        at = functools.partial(lambda m, b, p: m(p, b, x)[0], model, buffers)
        outputs, moved[kind] = jvp(at, (params,), (direction,))
        assert outputs.dtype == moved[kind].dtype == torch.float32
    assert moved[None].abs().max() > 0.1
    found, expected = moved[torch.bfloat16].flatten(), moved[None].flatten()
    assert torch.nn.functional.cosine_similarity(found, expected, dim=0) > 0.99


@pytest.mark.parametrize("norm", NORMS)
def test_normalisations_give_the_precision_that_they_get(norm):
    seen = {}
    for name, kind in (("wide", torch.float32), ("narrow", torch.bfloat16)):
        layer = with_wide_norms(seeded(NORMS[norm]).float())
        with torch.autocast("cpu", torch.bfloat16):
            seen[name] = layer(inputs(8, 6, 4, 4).to(kind))
        assert seen[name].dtype == kind
    torch.testing.assert_close(seen["narrow"].float(), seen["wide"], rtol=0.02, atol=0.02)


def test_a_normalisation_that_is_narrow_itself_stays_so():
    layer = with_wide_norms(seeded(lambda: nn.GroupNorm(2, 6)).bfloat16())
    x = inputs(8, 6, 4, 4).bfloat16()
    assert layer(x).dtype == torch.bfloat16
    assert layer(input=x).dtype == torch.bfloat16


def test_channels_last_lays_out_and_changes_no_number():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 2)).double()
        inputs = torch.randn(5, 3, 6, 6, dtype=torch.float64)
    plain, laid_out = FunctionalModel(net), FunctionalModel(net, channels_last=True)
    params, buffers = laid_out.state()
    assert params["0.weight"].is_contiguous(memory_format=torch.channels_last)
    assert params["0.bias"].is_contiguous()
    outputs, after = laid_out(params, buffers, inputs)
    assert outputs.is_contiguous(memory_format=torch.channels_last)
    expected, expected_after = plain(*plain.state(), inputs)
    torch.testing.assert_close(outputs, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(after, expected_after, rtol=1e-9, atol=1e-12)
