"""The parser: what it reads, what it refuses and where, and that nothing else can happen."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from metaloss.errors import MetalossError
from metaloss.losses.symbolic import OPERATORS, Expression, parse
from metaloss.losses.symbolic.parse import LONGEST_TEXT

from .trees import EXPRESSIONS

WORDS = ["t", "p", "(", ")", ",", "+", "-", "*", "**", "^", "/", "1", "2", "0.5", "1e3", " "]
LIKELY = st.lists(st.sampled_from([*WORDS, *OPERATORS]), max_size=40).map("".join)


@settings(max_examples=2000, deadline=None)
@given(LIKELY | st.text(max_size=60))
@example("(" * 5000)
@example("-" * 5000 + "t")
@example("t" + "+t" * 5000)
@example("square(" * 3000 + "p" + ")" * 3000)
@example("1e999999999")
@example("\N{ARABIC-INDIC DIGIT FIVE}*p")
@example("t\N{NO-BREAK SPACE}+p")
@example("t\x00")
@example("__import__('os').system('true')")
def test_a_text_is_an_expression_or_an_error_of_one_line(text):
    message = refusal(text)
    if message is None:
        found = parse(text)
        assert parse(str(found)) == found
    else:
        assert message.startswith("expression")
        assert "\n" not in message
        assert len(message) < 400


def refusal(text):
    try:
        parse(text)
    except MetalossError as error:
        return str(error)
    return None


@settings(max_examples=500, deadline=None)
@given(EXPRESSIONS)
def test_printed_and_parsed_an_expression_is_itself(expression):
    assert parse(str(expression)) == expression


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("(t - p)^2", "square(sub(t, p))"),
        ("(t - p)**2", "square(sub(t, p))"),
        ("t - p - 1", "sub(sub(t, p), 1)"),
        ("t + p*p", "add(t, mul(p, p))"),
        ("(t + p)*p", "mul(add(t, p), p)"),
        ("-t*log(p)", "mul(mul(-1, t), log(p))"),
        ("-p^2", "mul(-1, square(p))"),
        ("-2^2", "mul(-1, square(2))"),
        ("t - -1", "sub(t, -1)"),
        ("--1", "mul(-1, -1)"),
        (" max( t ,\n p ) ", "max(t, p)"),
        ("aq(t, .5e-1)", "aq(t, 0.05)"),
    ],
)
def test_infix_is_read_by_the_usual_rules(text, same):
    assert str(parse(text)) == same


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("", 1, "got the end of the text"),
        ("square(sub(t p))", 14, "got 'p', expected ',': sub takes 2 arguments"),
        ("squre(p)", 1, "did you mean 'square'"),
        ("square p", 8, r"expected '\(' after square"),
        ("add(t, p, p)", 9, "add takes 2 argument"),
        ("log(t, p)", 6, "log takes 1 argument"),
        ("t / p", 3, "there is no division: use aq"),
        ("p^3", 3, "expected 2, the only allowed power"),
        ("(t", 3, r"expected an operator or '\)'"),
        ("t)", 2, "expected an operator or the end"),
        ("t $ p", 3, r"unexpected character '\$'"),
        ("t + 1e7", 5, "expected a number up to 1e"),
        ("t\N{NO-BREAK SPACE}", 2, "unexpected character"),
        ("t p", 3, "expected an operator or the end"),
    ],
)
def test_an_error_points_at_its_column(text, column, message):
    with pytest.raises(MetalossError, match=rf"expression, column {column}: .*{message}"):
        parse(text)


def test_a_long_text_is_refused_by_its_length():
    with pytest.raises(MetalossError, match="20001 characters: expected at most 20000"):
        parse("p" * (LONGEST_TEXT + 1))


def test_a_tree_that_is_too_large_is_refused():
    with pytest.raises(MetalossError, match=r"expected at most 500 nodes"):
        parse("t" + "+p" * 400)
    assert isinstance(parse("t" + "+p" * 40), Expression)
