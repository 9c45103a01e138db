"""A loss in other notations: the Python runs and agrees, the LaTeX can be drawn."""

import math

import pytest
import torch
from hypothesis import given, settings
from matplotlib.mathtext import MathTextParser

from metaloss.errors import MetalossError
from metaloss.losses import Symbolic, Taylor
from metaloss.losses.symbolic import SymbolicConfig, parse
from metaloss.losses.symbolic.operators import FLOOR
from metaloss.losses.symbolic.render import as_latex, as_text
from metaloss.losses.taylor import TaylorConfig
from metaloss.types import Link

from ..families import rows
from .trees import EXPRESSIONS

TEXTS = [
    "square(sub(t, p))",
    "-t*log(p) - (1 - t)*log(1 - p)",
    "aq(min(t, 0.5), max(p, -1)) + sqrt(abs(t - p))*tanh(2*p)",
    "square(square(p)) - sign(p - t)*log(-0.5)",
    "min(1, square(0.3*p)) * sub(t, 3)",
]
LINKS = ["softmax", "sigmoid", "identity"]


def symbolic(text, link):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Symbolic(SymbolicConfig(expression=text, noise=0.2), link=link).double()


def taylor(order, link):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(order)
        return Taylor(TaylorConfig(order=order), link=link).double()


LOSSES = [symbolic(text, link) for text in TEXTS for link in LINKS]
LOSSES += [taylor(order, link) for order in (2, 3, 5) for link in LINKS]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda one: type(one).__name__)
def test_the_python_source_is_the_loss(loss):
    space: dict = {}
    exec(loss.python(), space)  # our own text, as a person would paste it
    outputs, target = rows(loss.link, (6, 4))
    expected = loss(outputs, target)
    assert expected.abs() > 1e-3
    torch.testing.assert_close(space["criterion"](outputs, target), expected, rtol=1e-10, atol=0)


def test_the_python_source_takes_soft_targets():
    loss = symbolic(TEXTS[1], "softmax")
    outputs, _ = rows(loss.link, (6, 4))
    soft = outputs.flip(0).softmax(1)
    space: dict = {}
    exec(loss.python(), space)
    torch.testing.assert_close(space["criterion"](outputs, soft), loss(outputs, soft))


def criterion_of(loss):
    space: dict = {}
    exec(loss.python(), space)
    return space["criterion"]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda one: type(one).__name__)
def test_the_python_source_takes_further_dimensions(loss):
    outputs, target = rows(loss.link, (3, 4, 2, 5))
    expected = loss(outputs, target)
    torch.testing.assert_close(criterion_of(loss)(outputs, target), expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("ignored", [-100, -1, 255, 2])
def test_the_python_source_leaves_out_what_the_loss_leaves_out(ignored):
    loss = symbolic(TEXTS[1], "softmax")
    loss.ignore_index = ignored
    criterion = criterion_of(loss)
    outputs, target = rows(loss.link, (8, 4))
    target[0], target[:3] = 0, ignored
    for seen in (target, target.to(torch.int32), torch.full_like(target, ignored)):
        torch.testing.assert_close(criterion(outputs, seen), loss(outputs, seen))
    torch.testing.assert_close(criterion(outputs[:0], target[:0]), loss(outputs[:0], target[:0]))


@pytest.mark.parametrize("wrong", [255, -1, 4])
def test_the_python_source_refuses_a_class_index_out_of_range(wrong):
    criterion = criterion_of(symbolic(TEXTS[1], "softmax"))
    outputs, target = rows(Link.softmax, (6, 4))
    target[2] = wrong
    with pytest.raises(RuntimeError, match=f"index {wrong} is out of bounds"):
        criterion(outputs, target)
    with pytest.raises(RuntimeError, match=f"index {wrong} is out of bounds"):
        torch.func.vmap(criterion)(outputs[None], target[None])


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_the_python_source_is_nan_for_soft_targets_out_of_range(link):
    loss = symbolic(TEXTS[1], link)
    outputs, _ = rows(loss.link, (6, 4))
    for wrong in (-0.5, float("nan")):
        soft = outputs.flip(0).softmax(1)
        soft[1, 2] = wrong
        with pytest.raises(MetalossError):
            loss(outputs, soft)
        assert criterion_of(loss)(outputs, soft).isnan()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_python_source_computes_in_the_losss_type(dtype):
    loss = symbolic(TEXTS[1], "softmax").float()
    outputs, target = rows(loss.link, (6, 4))
    found, expected = criterion_of(loss)(outputs.to(dtype), target), loss(outputs.to(dtype), target)
    assert found.dtype == expected.dtype == torch.float32
    torch.testing.assert_close(found, expected)


@settings(max_examples=60, deadline=None)
@given(EXPRESSIONS)
def test_the_text_for_people_has_the_values_of_the_expression(expression):
    """Where no floor is reached: the text leaves the floors out."""
    draw = torch.Generator().manual_seed(0)
    p, t = torch.rand(2, 5, generator=draw, dtype=torch.float64) + 0.1
    expected = expression.evaluate(p, t)
    if not expected.isfinite().all() or expected.abs().max() > 1e4:
        return
    found = [evaluated(as_text(expression, positive=True), *row) for row in zip(t, p, strict=True)]
    if any(value is None for value in found):
        return
    torch.testing.assert_close(torch.tensor(found).double(), expected, rtol=5e-2, atol=5e-2)


def evaluated(text, t, p):
    names = {
        "t": t.item(),
        "p": p.item(),
        "sign": lambda a: (a > 0) - (a < 0),
        "Abs": abs,
        "Min": min,
        "Max": max,
        "log": log,
        **{name: getattr(math, name) for name in ("sqrt", "tanh")},
    }
    try:
        return float(eval(text, names))  # our own text
    except (ValueError, ZeroDivisionError, OverflowError):
        return None  # a floor was left out


def log(a):
    if a < FLOOR:
        raise ValueError
    return math.log(a)


@pytest.mark.parametrize(
    ("text", "positive", "simple"),
    [
        ("mul(-1, mul(t, log(p)))", True, "-t*log(p)"),
        ("add(p, p) - t", False, "2*p - t"),
        ("sqrt(square(p))*t", True, "p*t"),
        ("log(sub(p, p))*t", True, "-16.12*t"),
        ("log(min(t, 0))*p", True, "-16.12*p"),
        ("log(min(-1e-9, t))*p", True, "-16.12*p"),
        ("max(p, -1)*t", True, "p*t"),
        ("abs(t - p)", False, "Abs(p - t)"),
    ],
)
def test_the_text_for_people_is_simple(text, positive, simple):
    assert as_text(parse(text), positive=positive).replace("-p + t", "t - p") == simple


@pytest.mark.parametrize("loss", LOSSES, ids=lambda one: type(one).__name__)
def test_the_latex_can_be_drawn(loss):
    box = MathTextParser("path").parse(f"${loss.latex()}$")
    assert box.width > 10


def test_an_expression_too_long_for_people_is_shown_as_it_is():
    expression = parse("+".join(["t*p"] * 40))
    assert as_text(expression) == str(expression)
    assert "add" in as_latex(expression)


def test_printing_shows_the_formula():
    loss = Symbolic(SymbolicConfig(expression="-t*log(p)"))
    assert "-t*log(p)" in repr(loss)
