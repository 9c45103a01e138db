import pytest

from metaloss.errors import MetalossError
from metaloss.study.spec import Row, Study, parse_row, parse_seeds


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("0-4", (0, 1, 2, 3, 4)),
        ("3", (3,)),
        (7, (7,)),
        ("1, 4-5", (1, 4, 5)),
        ([2, "8-9"], (2, 8, 9)),
    ],
)
def test_seeds(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "4-2", "-1", "1-", "0-2,1", "1.5", True])
def test_seeds_that_cannot_be_read(text):
    with pytest.raises(MetalossError, match="seed"):
        parse_seeds(text)


def test_row_words_may_be_quoted():
    row = parse_row("two words: loss.hidden=[64,64] 'output_note=a b'")
    assert row == Row(name="two words", overrides=("loss.hidden=[64,64]", "output_note=a b"))
    assert row.slug == "two-words"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("loss=mlp", "expected 'NAME: KEY=VALUE"),
        ("loss=mlp: x", "expected 'NAME: KEY=VALUE"),
        (": loss=mlp", "expected a name"),
        ("../: loss=mlp", "expected a name"),
        ("a: loss", "expected KEY=VALUE"),
        ("a: loss='mlp", "No closing quotation"),
        ("a: seed=3", "the comparison itself sets seed"),
        ("a: output=x", "the comparison itself sets output"),
    ],
)
def test_rows_that_cannot_be_read(text, said):
    with pytest.raises(MetalossError, match=said):
        parse_row(text)


def test_a_rows_words_win_over_the_common_ones_and_the_seed_comes_last():
    row = Row(name="a", overrides=("steps=7", "loss=mlp"))
    study = Study(rows=(row,), common=("steps=5", "task=digits"))
    assert study.overrides(row, 3) == [
        "tracker=[]",
        "steps=7",
        "task=digits",
        "loss=mlp",
        "seed=3",
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rows": ()}, "nothing to compare"),
        ({"seeds": ()}, "no seeds"),
        ({"rows": (Row(name="a b"), Row(name="A, b"))}, "two rows are called 'A, b'"),
        ({"reference": "onlin"}, "unknown reference row 'onlin': did you mean 'online'"),
        ({"common": ("steps",)}, "expected KEY=VALUE"),
    ],
)
def test_studies_that_make_no_sense(changes, said):
    with pytest.raises(MetalossError, match=said):
        Study(**({"rows": (Row(name="online"),)} | changes))
