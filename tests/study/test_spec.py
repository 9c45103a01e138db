import pytest

from metaloss.errors import MetalossError
from metaloss.study.spec import (
    Row,
    Study,
    load_study,
    parse_row,
    parse_seeds,
    shipped_studies,
    to_yaml,
)


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
        ({"aside": ("onlin",)}, "unknown aside: row 'onlin': did you mean 'online'"),
        ({"aside": ("online", "online")}, "aside: row 'online' occurs twice"),
        ({"groups": {"g": ("clean",)}}, "unknown group 'g': block 'clean'"),
        ({"groups": {"all": ("b",)}, "blocks": (Row(name="b"),)}, "a label other than all"),
        ({"groups": {"g": ()}}, "group 'g': expected blocks"),
    ],
)
def test_studies_that_make_no_sense(changes, said):
    with pytest.raises(MetalossError, match=said):
        Study(**({"rows": (Row(name="online"),)} | changes))


def test_the_demo_is_shipped_with_its_six_rows():
    assert "demo" in shipped_studies()
    study = load_study("demo")
    assert len(study.rows) == 6
    assert study.seeds == (0, 1, 2)
    assert "task.label_noise=0.5" in study.common
    assert study.reference == study.rows[0].name


def test_a_study_survives_its_file(tmp_path):
    study = load_study("demo")
    path = tmp_path / "again.yaml"
    path.write_text(to_yaml(study))
    assert load_study(path) == study


def test_groups_of_blocks_and_rows_aside_survive_the_file(tmp_path):
    study = Study(
        rows=(Row(name="a"), Row(name="b")),
        blocks=(Row(name="clean"), Row(name="40 % wrong"), Row(name="80 % wrong")),
        groups={"noisy": ("40 % wrong", "80 % wrong")},
        aside=("b",),
    )
    path = tmp_path / "study.yaml"
    path.write_text(to_yaml(study))
    assert load_study(path) == study
    alone = study.of_block(study.blocks[0])
    assert (alone.groups, alone.aside) == ({}, ()), "they are about the whole"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rows: {a: [loss=mlp], a: [loss=mse]}", "duplicate key"),
        ("row: {a: [loss=mlp]}", "unknown key in study .*did you mean 'rows'"),
        ("rows: [a]", "expected names with lists"),
        ("rows: {a: loss=mlp}", "expected a list of KEY=VALUE"),
        ("rows: {a: [loss=mlp]}\nseeds: x", "expected a number or a range"),
        ("rows: [", "is no plain YAML"),
        ("rows: {a: []}\ngroups: [b]", "expected labels with lists of blocks"),
        ("rows: {a: []}\ngroups: {g: b}", "groups.g=b: expected a list of block names"),
        ("rows: {a: []}\naside: a", "aside=a: expected a list of row names"),
        ("- a", "expected aside, blocks, common, description"),
    ],
)
def test_study_files_that_cannot_be_read(tmp_path, text, said):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(MetalossError, match=said):
        load_study(path)


def test_unknown_studies(tmp_path):
    with pytest.raises(MetalossError, match=r"unknown study 'dmeo': did you mean 'demo'\?"):
        load_study("dmeo")
    with pytest.raises(MetalossError, match=r"cannot read the study .*No such file"):
        load_study(tmp_path / "none.yaml")
