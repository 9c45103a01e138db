"""In which type a loss computes: the parameters' own, single precision at least."""

import pytest
import torch
from torch.func import functional_call, vmap
from torch.nn import functional as F

from metaloss.errors import MetalossError
from metaloss.losses import CrossEntropy, LogitAdjusted, MLPLoss
from metaloss.losses.logit_adjusted import LogitAdjustedConfig
from metaloss.types import Link

from .families import CASES, LEARNED, build, phi_of, rows

HALVES = [torch.bfloat16, torch.float16]


def _slopes(loss, outputs, target):
    outputs = outputs.clone().requires_grad_()
    value = loss(outputs, target)
    return value, torch.autograd.grad(value, [outputs, *loss.parameters()])


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("name", "link"), CASES)
def test_half_outputs_are_those_outputs_in_single_precision(name, link, dtype):
    loss = build(name, link).float()
    outputs, target = rows(link)
    outputs = outputs.to(dtype)
    value, (slope, *of_phi) = _slopes(loss, outputs, target)
    aim, (expected, *of_aim) = _slopes(loss, outputs.float(), target)
    assert value.dtype == torch.float32
    assert slope.dtype == dtype
    torch.testing.assert_close(value, aim, rtol=0, atol=0)
    torch.testing.assert_close(slope, expected.to(dtype), rtol=0, atol=0)
    torch.testing.assert_close(of_phi, of_aim, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize(("name", "link"), LEARNED)
def test_double_outputs_are_computed_in_double(name, link, dtype):
    """Against the same loss whose φ is double: the values of φ are the same."""
    loss = build(name, link).to(dtype)
    double = build(name, link)
    double.load_state_dict(loss.state_dict())
    outputs, target = rows(link)
    value, (slope, *of_phi) = _slopes(loss, outputs, target)
    aim, (expected, *of_aim) = _slopes(double, outputs, target)
    assert expected.abs().max() > 0
    assert value.dtype == slope.dtype == torch.float64
    torch.testing.assert_close(value, aim, rtol=1e-14, atol=0)
    torch.testing.assert_close(slope, expected, rtol=1e-13, atol=1e-17)
    assert {one.dtype for one in of_phi} == {dtype}
    torch.testing.assert_close(of_phi, [one.to(dtype) for one in of_aim])


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("name", "link"), LEARNED)
def test_a_half_phi_computes_in_single_precision(name, link, dtype):
    loss = build(name, link).to(dtype)
    single = build(name, link).float()
    single.load_state_dict(loss.state_dict())
    outputs, target = rows(link)
    for given in (outputs.to(dtype), outputs.float()):
        value = loss(given, target)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, single(given.float(), target), rtol=0, atol=0)


def test_a_double_phi_computes_in_double():
    outputs, target = rows(Link.softmax)
    loss = build("mlp")
    found = loss(outputs.float(), target)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, loss(outputs.float().double(), target), rtol=0, atol=0)


def test_the_hand_made_ones_compute_as_torch_does_in_single_precision():
    outputs, target = rows(Link.softmax)
    outputs = outputs.bfloat16()
    aim = F.cross_entropy(outputs.float(), target)
    torch.testing.assert_close(CrossEntropy()(outputs, target), aim, rtol=1e-6, atol=0)
    shares = LogitAdjustedConfig(shares=[0.4, 0.3, 0.2, 0.1])
    single, double = LogitAdjusted(shares), LogitAdjusted(shares).double()
    torch.testing.assert_close(single(outputs, target), double(outputs, target), rtol=0, atol=0)


def test_autocast_does_not_reach_into_a_loss():
    outputs, target = rows(Link.softmax)
    loss = build("mlp").float()
    aim = loss(outputs.float(), target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.nn.functional.linear(outputs.float(), outputs.float()).dtype == torch.bfloat16
        found = loss(outputs.float(), target)
    torch.testing.assert_close(found, aim, rtol=0, atol=0)


def test_types_that_differ_vectorise_and_compile():
    loss = build("mlp", hidden=[3]).float()
    outputs, target = rows(Link.softmax)
    aim, (expected, *_) = _slopes(loss, outputs, target)
    phi = {name: value.expand(2, *value.shape) for name, value in phi_of(loss).items()}
    found = vmap(lambda at: functional_call(loss, at, (outputs, target)))(phi)
    torch.testing.assert_close(found, aim.expand(2))
    torch.compiler.reset()
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    leaf = outputs.clone().requires_grad_()
    (slope,) = torch.autograd.grad(compiled(leaf, target), leaf)
    torch.testing.assert_close(slope, expected)


def test_the_loss_stays_in_its_type():
    loss = build("mlp").float()
    outputs, target = rows(Link.softmax)
    before = {name: (value, value.dtype) for name, value in loss.named_parameters()}
    loss(outputs, target)
    with pytest.raises(MetalossError):
        loss(outputs, target + 1000)
    for name, value in loss.named_parameters():
        assert value is before[name][0]
        assert value.dtype == torch.float32


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        (torch.zeros(6, 4, dtype=torch.int64), "the raw outputs are torch.int64 and strided"),
        (torch.zeros(6, 4, dtype=torch.complex64), "torch.complex64 and strided: expected a dense"),
        (torch.zeros(6, 4).to_sparse(), "torch.float32 and sparse_coo: expected a dense tensor"),
        (torch.zeros(6, 0), r"have shape \(6, 0\): expected \(B, C, \*\) with C ≥ 1"),
        (torch.zeros(()), r"have shape \(\): expected \(B, C, \*\)"),
        ((torch.zeros(6, 4),), r"the raw outputs are a tuple: expected a tensor \(B, C, \*\)"),
        (None, "the raw outputs are a NoneType: expected a tensor"),
    ],
)
def test_outputs_of_other_kinds_are_refused_in_one_line(outputs, words):
    with pytest.raises(MetalossError, match=words) as caught:
        MLPLoss()(outputs, torch.zeros(6, dtype=torch.int64))
    assert "\n" not in str(caught.value)
