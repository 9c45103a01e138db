"""Every family as Python source: the same loss in a program without metaloss."""

import pytest
import torch

from metaloss.losses.export import load_loss
from metaloss.losses.mlp import Activation, MLPLossConfig, Output

from .conftest import write_export
from .families import CASES, build, rows

SHIFTED = {"class_offsets": 4}
MORE = [
    ("mlp", {"activation": kind, "output": end, **SHIFTED})
    for kind, end in zip(Activation, [*Output] * 2, strict=True)
]
FOCAL = [("focal", {"gamma": 0.0}), ("gce", {"q": 1.0}), ("label_smoothing", {"smoothing": 0.0})]


def alone(loss):
    """Return the exported function."""
    text = loss.python()
    assert "metaloss" not in text
    names = {}
    exec(compile(text, "criterion.py", "exec"), names)
    return names["criterion"]


@pytest.mark.parametrize(("name", "link"), CASES)
@pytest.mark.parametrize("shape", [(6, 4), (5, 4, 3)])
def test_every_family_is_the_same_function(name, link, shape):
    loss = build(name, link)
    same(loss, *rows(link, shape))


@pytest.mark.parametrize(("name", "options"), MORE + FOCAL)
def test_options_are_kept(name, options):
    loss = build(name, **options)
    if "class_offsets" in options:
        loss.offsets.data = torch.tensor([0.5, -0.25, 0.0, 0.125], dtype=torch.float64)
    outputs, target = rows(loss.link)
    target[1] = loss.ignore_index
    same(loss, outputs, target)


def same(loss, outputs, target):
    criterion = alone(loss)
    found, expected = outputs.clone().requires_grad_(), outputs.clone().requires_grad_()
    value, known = criterion(found, target), loss(expected, target)
    assert known != 0
    assert abs(value - known) <= 1e-12 * abs(known)
    slopes = torch.autograd.grad(value, found)[0], torch.autograd.grad(known, expected)[0]
    assert slopes[1].abs().max() > 0
    torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-14)


def test_single_precision_is_exact_too(tmp_path):
    loss = load_loss(write_export(tmp_path, build("mlp").float()))
    outputs, target = rows(loss.link)
    found, expected = (one(outputs.float(), target) for one in (alone(loss), loss))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_a_loss_that_sees_more_than_outputs_has_no_such_source():
    assert build("mlp", inputs=[*MLPLossConfig().inputs, "rank"]).python() is None
