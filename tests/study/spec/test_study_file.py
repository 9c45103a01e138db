import pytest

from metaloss.compose import compose
from metaloss.errors import MetalossError
from metaloss.study.spec.study_file import load_study, shipped_studies, to_yaml


def test_the_demo_is_shipped_with_its_six_rows():
    assert "demo" in shipped_studies()
    study = load_study("demo")
    assert len(study.rows) == 6
    assert study.seeds == (0, 1, 2)
    assert "task.label_noise=0.5" in study.common
    assert study.reference == study.rows[0].name


@pytest.mark.parametrize("name", shipped_studies())
def test_every_shipped_study_can_be_trained(name):
    study = load_study(name)
    parts = [study.of_block(block) for block in study.blocks] or [study]
    seen = set()
    for part in parts:
        # Every block with one row, and every row in the first block that has it.
        for row in [part.rows[0], *(row for row in part.rows if row.name not in seen)]:
            seen.add(row.name)
            for words in row.tune[:1] or [()]:
                compose([*part.overrides(row, study.seeds[0]), *words])
    assert seen == {row.name for row in study.rows}


def test_the_study_asks_all_that_it_says():
    study = load_study("embedded")
    (tuned,) = {row.tune for row in study.rows if row.tune}
    assert tuned == tuple((f"inner.lr={rate}",) for rate in (0.001, 0.003, 0.01, 0.03))
    assert len(study.blocks) == 34
    assert sum(map(len, study.groups.values())) == 34
    assert study.seeds == tuple(range(10))
    assert not set(study.seeds) & set(study.tuning_seeds)
    assert {"static", "static, early stopping", "offline, ML³", "offline, imitate"} <= {
        row.name for row in study.rows if row.name not in study.aside
    }


def test_a_study_survives_its_file(tmp_path):
    study = load_study("demo")
    path = tmp_path / "again.yaml"
    path.write_text(to_yaml(study))
    assert load_study(path) == study


TUNED = """
rows:
  CE: {words: [loss=cross_entropy], tune: [[inner.lr=0.1], [inner.lr=0.2, steps=3], []]}
  twin: {words: [loss=gce], tuned_as: CE}
  plain: [loss=focal]
tuning: {seeds: 100-102}
blocks:
  clean: [task=digits]
  noisy: {words: [task.label_noise=0.5], without: [twin, plain]}
"""


def test_tuning_and_blocks_are_read_and_survive_their_file(tmp_path):
    path = tmp_path / "tuned.yaml"
    path.write_text(TUNED)
    study = load_study(path)
    assert study.tuning_seeds == (100, 101, 102)
    assert study.rows[0].overrides == ("loss=cross_entropy",)
    assert study.rows[0].tune == (("inner.lr=0.1",), ("inner.lr=0.2", "steps=3"), ())
    assert [row.tuned_as for row in study.rows] == [None, "CE", None]
    assert [block.without for block in study.blocks] == [(), ("twin", "plain")]
    assert study.blocks[1].overrides == ("task.label_noise=0.5",)
    path.write_text(to_yaml(study))
    assert load_study(path) == study


def test_groups_of_blocks_and_rows_aside_survive_the_file(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(TUNED + "groups: {wrong labels: [noisy]}\naside: [plain]\n")
    study = load_study(path)
    assert study.groups == {"wrong labels": ("noisy",)}
    assert study.aside == ("plain",)
    path.write_text(to_yaml(study))
    assert load_study(path) == study


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rows: {a: [loss=mlp], a: [loss=mse]}", "duplicate key"),
        ("row: {a: [loss=mlp]}", "unknown key 'row': did you mean 'rows'"),
        ("rows: [a]", "expected names with lists of words"),
        ("rows: {a: loss=mlp}", "expected a list of KEY=VALUE"),
        ("rows: {a: [loss=mlp]}\nseeds: x", "expected a number or a range"),
        ("rows: [", "is not plain YAML"),
        ("rows: {a: {word: [loss=mlp]}}", "unknown key of rows.a 'word': did you mean 'words'"),
        ("rows: {a: {tune: []}}", r"rows\.a\.tune=\[\]: expected lists of KEY=VALUE words"),
        ("rows: {a: {tune: [inner.lr=1]}}", r"rows\.a\.tune\[0\]=inner\.lr=1: expected a list"),
        (
            "rows: {a: []}\nblocks: {b: {without: a}}",
            "blocks.b.without=a: expected a list of names",
        ),
        ("rows: {a: {tune: [[]]}}\ntuning: 100-102", "tuning=100-102: expected for example seeds"),
        ("rows: {a: []}\ngroups: [b]", "expected labels with lists of blocks"),
        ("rows: {a: []}\ngroups: {g: b}", "groups.g=b: expected a list of names"),
        ("rows: {a: []}\naside: a", "aside=a: expected a list of names"),
        ("rows: {a: [loss: mlp]}", r"rows\.a\.words\[0\]=\{'loss': 'mlp'\}: expected text"),
        ("together: 1.5", "together=1.5: expected a whole number"),
        ("tuning: {seed: 1}", "unknown key of tuning 'seed': did you mean 'seeds'"),
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
