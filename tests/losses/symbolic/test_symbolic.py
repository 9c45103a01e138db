"""The symbolic loss: what its expression says, options, and that learning moves it."""

import pytest
import torch
from torch import nn

from metaloss.compose import compose
from metaloss.compose.words import parse
from metaloss.errors import MetalossError
from metaloss.losses import ClassReduction, Symbolic
from metaloss.losses.symbolic import SymbolicConfig
from metaloss.starts import Imitate, Keep, Random
from metaloss.types import Link

from ..families import rows


def build(text, link="softmax", **options):
    return Symbolic(SymbolicConfig(expression=text, **options), link=link).double()


def test_cross_entropy_as_an_expression_is_cross_entropy():
    outputs, target = rows(Link.softmax, (6, 4))
    expected = nn.functional.cross_entropy(outputs, target)
    summed = build("-t*log(p)", class_reduction=ClassReduction.sum)
    torch.testing.assert_close(summed(outputs, target), expected)
    torch.testing.assert_close(4 * build("-t*log(p)")(outputs, target), expected)


def test_squared_error_as_an_expression_is_squared_error():
    outputs, target = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)).double()
    found = build("(t - p)^2", "identity")(outputs, target)
    torch.testing.assert_close(found, nn.functional.mse_loss(outputs, target))


@pytest.mark.parametrize("start", [Imitate(steps=5), Keep(), Random()])
def test_no_start_changes_what_the_expression_says(start):
    loss = build("-t*log(p)")
    phi = start.begin(loss, nn.functional.cross_entropy, 3, seed=0)
    assert torch.equal(phi["coefficients"], torch.ones(5, dtype=torch.float64))


def test_the_guard_may_still_refit_the_coefficients():
    phi = Imitate(steps=50).fit(build("(t - p)^2"), nn.functional.cross_entropy, 3, seed=0)
    assert (phi["coefficients"] - 1).abs().max() > 0.01


def test_noise_spreads_the_coefficients_around_one():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        loss = build("+".join(["t*p"] * 30), noise=0.001)
    assert 0.0005 < (loss.coefficients - 1).std() < 0.002


def test_without_coefficients_there_is_nothing_to_learn():
    loss = build("(t - p)^2", coefficients=False)
    assert list(loss.parameters()) == []
    outputs, target = rows(Link.softmax, (6, 4))
    torch.testing.assert_close(loss(outputs, target), build("(t - p)^2")(outputs, target))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"expression": "square(t)"}, "expected an expression with the prediction p"),
        ({"expression": "log(p)"}, "expected an expression with the target t"),
        ({"expression": "square(t - q)"}, r"loss.expression, column 12: unknown name 'q'"),
        ({"noise": -0.1}, "loss.noise=-0.1: expected a number in"),
        ({"noise": float("nan")}, "loss.noise=nan"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(MetalossError, match=message):
        SymbolicConfig(**options)


def test_an_expression_is_given_on_the_command_line():
    config = compose(["loss=symbolic", "loss.expression='square(sub(t, p))'"])
    assert config.loss.options.expression == "square(sub(t, p))"


def test_a_bad_expression_on_the_command_line_is_one_line():
    with pytest.raises(MetalossError, match=r"^loss=symbolic: .*column 1.*squre") as caught:
        compose(["loss=symbolic", "loss.expression='squre(t - p)'"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["square(sub(t, p))", "-t*log(p) + 0.1*(t - p)^2", "'square(t - p)'", '"(t - p)^2"']
)
def test_an_expression_needs_no_quotes_of_hydras(text):
    config = compose(["loss=symbolic", f"loss.expression={text}"])
    assert config.loss.options.expression == text.strip("'\"")


def test_expressions_can_still_be_swept_over():
    (found,) = parse(["loss.expression=choice('t*p','(t - p)^2')"], sweep=True)
    assert found.is_choice_sweep()
    assert len(list(found.sweep_string_iterator())) == 2
