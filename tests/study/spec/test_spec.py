from dataclasses import replace

import pytest

from metaloss.errors import MetalossError
from metaloss.study.spec.spec import Block, Row, Study
from metaloss.study.spec.study_file import parse_row, parse_seeds


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


@pytest.mark.parametrize("text", ["0-99999999999", "0-6000,7000-12000", "9" * 5000])
def test_too_many_seeds_are_refused_at_once(text):
    with pytest.raises(MetalossError, match=r"at most 10000 seeds|expected a number or a range"):
        parse_seeds(text)
    assert len(parse_seeds("1-10000")) == 10_000


@pytest.mark.parametrize("text", ["", "a", "4-2", "-1", "1-", "0-2,1", "1.5", 1.5, True])
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
        ({"rows": (Row(name="a b"), Row(name="A, b"))}, "two rows are named 'A, b'"),
        ({"reference": "onlin"}, "unknown reference row 'onlin': did you mean 'online'"),
        ({"common": ("steps",)}, "expected KEY=VALUE"),
        ({"aside": ("onlin",)}, "unknown aside: row 'onlin': did you mean 'online'"),
        ({"aside": ("online", "online")}, "aside: row 'online' occurs twice"),
        ({"groups": {"g": ("clean",)}}, "unknown group 'g': block 'clean'"),
        ({"groups": {"all": ("b",)}, "blocks": (Block(name="b"),)}, "a label other than all"),
        ({"groups": {"g": ()}}, "group 'g': expected blocks"),
    ],
)
def test_studies_that_make_no_sense(changes, said):
    with pytest.raises(MetalossError, match=said):
        Study(**({"rows": (Row(name="online"),)} | changes))


TUNED = Row(name="CE", tune=(("inner.lr=0.1",), ("inner.lr=0.2",)))
LIKE = Row(name="like it", tuned_as="CE")
TUNING = {"rows": (TUNED, LIKE, Row(name="plain")), "tuning_seeds": (100, 101)}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"rows": (TUNED, Row(name="gce", tune=((),)))},
            "row 'gce' has 1 settings to tune, row 'CE' 2: expected the same number",
        ),
        (
            {"tuning_seeds": ()},
            r"row 'CE' is tuned: expected tuning seeds, such as tuning: \{seeds",
        ),
        ({"rows": (Row(name="a"),)}, "tuning seeds, but no row with settings"),
        ({"seeds": (3, 101)}, "seed 101 is in the study's seeds and in its tuning seeds"),
        ({"rows": (TUNED, Row(name="b", tuned_as="C"))}, "unknown row that 'b' is tuned as 'C'"),
        (
            {"rows": (TUNED, LIKE, Row(name="b", tuned_as="like it"))},
            "row 'b' is tuned as 'like it', which has no settings to tune",
        ),
        ({"rows": (replace(TUNED, name="Tuning"),)}, "the folder 'tuning' is for the tuning runs"),
        (
            {"blocks": (Block(name="b", without=("plian",)),)},
            "unknown row that block 'b' is without 'plian': did you mean 'plain'",
        ),
        (
            {"blocks": (Block(name="b", without=("plain",)),), "reference": "plain"},
            "block 'b' is without the reference row 'plain'",
        ),
        (
            {"blocks": (Block(name="b", without=("CE", "like it", "plain")),)},
            "block 'b' is without any row",
        ),
        (
            {"blocks": (Block(name="b", without=("CE",)),)},
            "block 'b' is without 'CE', but not without 'like it', which is tuned as it",
        ),
    ],
)
def test_tuning_and_blocks_that_make_no_sense(changes, said):
    Study(**TUNING)
    with pytest.raises(MetalossError, match=said):
        Study(**(TUNING | changes))


def test_a_row_is_tuned_or_tuned_as_another():
    with pytest.raises(MetalossError, match="row 'a': has both tune and tuned_as"):
        Row(name="a", tune=((),), tuned_as="b")
    with pytest.raises(MetalossError, match=r"row 'a', setting 1: .*expected KEY=VALUE"):
        Row(name="a", tune=((), ("lr",)))


def test_a_block_is_a_study_without_the_rows_that_it_leaves_out():
    block = Block(name="b", overrides=("task=digits",), without=("CE", "like it"))
    study = Study(**TUNING, common=("steps=5",), blocks=(block,))
    part = study.of_block(block)
    assert [row.name for row in part.rows] == ["plain"]
    assert part.common == ("steps=5", "task=digits")
    assert part.tuning_seeds == (), "nothing is tuned there"


def test_a_block_knows_no_other_block_and_of_the_rows_aside_those_that_it_has():
    block = Block(name="b", without=("d",))
    rows = (Row(name="a"), Row(name="c"), Row(name="d"))
    study = Study(rows=rows, blocks=(block,), groups={"g": ("b",)}, aside=("c", "d"))
    alone = study.of_block(block)
    assert (alone.blocks, alone.groups, alone.aside) == ((), {}, ("c",))
