import pytest
import torch
from metaloss_robust import Barron, Poly
from metaloss_robust.barron import BarronConfig
from metaloss_robust.poly import PolyConfig
from torch.nn import functional as F

import metaloss
from metaloss import registry
from metaloss.losses import CrossEntropy, Focal
from metaloss.losses.handcrafted import FocalConfig
from metaloss.testing import LossChecks


class TestBarron(LossChecks):
    def make(self):
        return Barron(link="identity")


class TestBarronOnProbabilities(LossChecks):
    def make(self):
        return Barron(BarronConfig(alpha=-2.0, scale=0.3), link="softmax")


class TestPoly(LossChecks):
    def make(self):
        return Poly(link="softmax")


class TestPolyWithFocus(LossChecks):
    def make(self):
        return Poly(PolyConfig(order=2, focus=1), link="sigmoid")


SQUARED = torch.linspace(0, 9, 31, dtype=torch.float64)
KNOWN = {
    1.0: (SQUARED + 1).sqrt() - 1,
    0.0: (SQUARED / 2 + 1).log(),
    -2.0: 2 * SQUARED / (SQUARED + 4),
    2 - 1e-9: SQUARED / 2,
}


@pytest.mark.parametrize("alpha", KNOWN)
def test_barrons_special_cases(alpha):
    loss = Barron(BarronConfig(alpha=alpha, scale=2.0), link="identity").double()
    found = loss.pointwise(2 * SQUARED.sqrt(), torch.zeros_like(SQUARED))
    torch.testing.assert_close(found, KNOWN[alpha], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("alpha", [-1e-3, 1e-12, 1e-3, 0.049, 0.051])
def test_barrons_derivatives_are_exact_around_zero(alpha):
    # Where a division by α would lose all digits.
    loss = Barron(BarronConfig(alpha=alpha), link="identity").double()
    outputs = torch.linspace(-3, 3, 7, dtype=torch.float64, requires_grad=True)

    def value(outputs, log_gap, log_scale):
        phi = {"log_gap": log_gap, "log_scale": log_scale}
        return torch.func.functional_call(loss, phi, (outputs, torch.zeros_like(outputs)))

    assert torch.autograd.gradcheck(value, (outputs, *loss.parameters()))
    assert torch.autograd.gradgradcheck(value, (outputs, *loss.parameters()))


def test_poly_begins_as_cross_entropy_and_focal_loss():
    draw = torch.Generator().manual_seed(0)
    outputs, target = torch.randn(8, 4, generator=draw), torch.randint(4, (8,), generator=draw)
    torch.testing.assert_close(Poly()(outputs, target), CrossEntropy()(outputs, target))
    focal = Focal(FocalConfig(gamma=2.0))(outputs, target)
    torch.testing.assert_close(Poly(PolyConfig(focus=2))(outputs, target), focal)


def test_poly_can_become_the_mean_absolute_error():
    draw = torch.Generator().manual_seed(0)
    outputs, target = torch.randn(8, 4, generator=draw), torch.randint(4, (8,), generator=draw)
    loss = Poly(PolyConfig(order=2))
    with torch.no_grad():
        loss.weight.zero_()
        loss.coefficients.copy_(torch.tensor([2.0, 0.0]))
    expected = (outputs.softmax(1) - F.one_hot(target, 4)).abs().sum(1).mean()
    torch.testing.assert_close(loss(outputs, target), expected)


@pytest.mark.parametrize(("loss", "task"), [("poly", "digits"), ("barron", "diabetes")])
def test_trained_by_name(loss, task, tmp_path):
    assert registry.get("loss", loss).source == "metaloss-robust 0.1.0"
    words = [f"task={task}", f"loss={loss}", "schedule=online", "start=keep", "steps=20"]
    run = metaloss.train([*words, "tracker=[]", f"output={tmp_path / 'run'}"])
    assert run.summary.status == "ok"
    before = registry.get("loss", loss).build(run.loss.config, link=run.loss.link)
    for (name, value), old in zip(run.loss.named_parameters(), before.parameters(), strict=True):
        assert not torch.equal(value, old), name
    again = metaloss.load_loss(run.folder)
    assert type(again) is type(run.loss)


def test_options_out_of_range_are_refused():
    with pytest.raises(metaloss.MetalossError, match=r"loss\.alpha=2: expected a number below 2"):
        BarronConfig(alpha=2)
    with pytest.raises(metaloss.MetalossError, match=r"loss\.order=0"):
        PolyConfig(order=0)
