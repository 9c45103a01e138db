import csv
import io
import json
import struct
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from metaloss.errors import MetalossError
from metaloss.study.compare import Options, Request, compare, compare_folders, run_request
from metaloss.study.spec.spec import Block, Row, Study

STUDY = Study(
    rows=(
        Row(name="CE", overrides=("schedule=static", "loss=cross_entropy")),
        Row(name="CE, stopped", overrides=("schedule=static", "loss=cross_entropy",
                                           "schedule.early_stopping=3")),
        Row(name="online", overrides=("schedule=online", "loss=mlp")),
    ),
    seeds=(0, 1, 2),
    common=("task=digits", "steps=400"),
    description="a study",
)  # fmt: skip
FINALS = {"ce": [0.4, 0.38, 0.41], "ce-stopped": [0.09, 0.1, 0.08], "online": [0.06, 0.05, 0.07]}


@pytest.fixture
def train(runs):
    def train(overrides, folder, *, resume):
        train.calls.append((folder.parent.name, folder.name, resume))
        row, seed = folder.parent.name, int(folder.name.removeprefix("seed"))
        stop = 200 if row == "ce-stopped" else None
        runs.write_run(folder, overrides, runs.Shape(stop=stop, final=0.3))
        runs.set_metrics(folder, FINALS[row][seed], FINALS[row][seed] - 0.01)
        return "ok"

    train.calls = []
    return train


@pytest.fixture
def no_picture(monkeypatch):
    """Pictures take most of a comparison's time: leave them out where they are not the subject."""
    monkeypatch.setattr(
        "metaloss.study.outputs.plot_comparison", lambda groups, table, path, **_: path
    )


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=100)


def test_a_study_is_trained_and_ends_in_files_with_its_numbers(tmp_path, train, console):
    found = compare(STUDY, tmp_path, train=train, console=console)
    assert len(train.calls) == 9
    names = ["table.csv", "table.json", "table.md", "comparison.png"]
    assert [file.name for file in found.files] == names
    head = (tmp_path / "comparison.png").read_bytes()[:24]
    assert struct.unpack(">II", head[16:24]) == (1440, 640), "as wide as a README shows"
    rows = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text())))
    for row, finals in zip(rows, FINALS.values(), strict=True):
        assert float(row["mean"]) == pytest.approx(np.mean(finals), rel=1e-12)
        assert float(row["std"]) == pytest.approx(np.std(finals, ddof=1), rel=1e-12)
        assert float(row["best_mean"]) == pytest.approx(np.mean(finals) - 0.01, rel=1e-12)
        assert row["reference"] == "CE"
    table = json.loads((tmp_path / "table.json").read_text())
    assert table["lines"][2]["difference"] == pytest.approx(
        np.mean(np.subtract(FINALS["online"], FINALS["ce"])), rel=1e-12
    )
    text = console.file.getvalue()
    assert (tmp_path / "table.md").read_text() in text
    assert "[9/9]" in text


def test_a_second_call_trains_nothing_and_writes_the_same_bytes(tmp_path, train, console):
    first = compare(STUDY, tmp_path, train=train, console=console)
    before = {file: file.read_bytes() for file in first.files}
    train.calls.clear()
    second = compare(STUDY, tmp_path, train=train, console=console)
    assert train.calls == []
    assert {file: file.read_bytes() for file in second.files} == before
    assert "9 of 9 runs are finished already" in console.file.getvalue()


@pytest.mark.usefixtures("no_picture")
def test_only_what_is_missing_is_trained(tmp_path, train, console):
    compare(STUDY, tmp_path, train=train, console=console)
    (tmp_path / "online" / "seed1" / "summary.json").unlink()
    train.calls.clear()
    more = Study(**{**vars(STUDY), "seeds": (0, 1)})
    compare(more, tmp_path, train=train, console=console)
    assert train.calls == [("online", "seed1", False)]


def test_a_wrong_reference_is_told_before_anything_is_trained(tmp_path, train, console):
    with pytest.raises(MetalossError, match="unknown reference row 'onlin'"):
        compare(STUDY, tmp_path, train=train, options=Options(reference="onlin"), console=console)
    assert train.calls == []
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("no_picture")
def test_an_interrupt_leaves_what_is_finished_and_says_how_far_it_came(tmp_path, train, console):
    def interrupted(overrides, folder, *, resume):
        if len(train.calls) == 2:
            raise KeyboardInterrupt
        return train(overrides, folder, resume=resume)

    with pytest.raises(KeyboardInterrupt):
        compare(STUDY, tmp_path, train=interrupted, console=console, options=Options(jobs=1))
    assert "stopped: 2 of 9 runs are finished" in console.file.getvalue()
    compare(STUDY, tmp_path, train=train, console=console)
    assert len(train.calls) == 9


@pytest.mark.usefixtures("no_picture")
def test_a_request_without_rows_goes_on_with_the_study_left_behind(tmp_path, train, console):
    compare(STUDY, tmp_path, train=train, console=console)
    found = run_request(Request(out=tmp_path, options=Options(reference="online")), console=console)
    assert [line.name for line in found.table.lines] == [row.name for row in STUDY.rows]
    assert found.table.reference == "online"


def test_a_request_adds_words_rows_and_seeds_to_a_study(tmp_path, train, console, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "metaloss.study.compare.compare", lambda study, *_, **__: asked.append(study)
    )
    request = Request(
        out=tmp_path, study="demo", seeds="5-6", words=("steps=9",), rows=("x: loss=focal",)
    )
    run_request(request, console=console)
    (study,) = asked
    assert study.seeds == (5, 6)
    assert study.common[-1] == "steps=9"
    assert [row.name for row in study.rows][-1] == "x"
    assert len(study.rows) == 7


def test_a_request_for_nothing_says_what_to_give(tmp_path):
    with pytest.raises(MetalossError, match="nothing to compare: give rows"):
        run_request(Request(out=tmp_path))


def test_given_runs_are_compared_without_training(tmp_path, train, console):
    compare(STUDY, tmp_path / "study", train=train, console=console)
    folders = tuple((tmp_path / "study").glob("*/seed*/"))
    for folder in folders:
        (folder / "loss.json").write_text('{"link": "softmax"}')
    found = run_request(Request(out=tmp_path / "again", runs=folders), console=console)
    assert len(found.table.lines) == 3
    by_name = {line.name: line for line in found.table.lines}
    online = by_name["loss=mlp, schedule=online"]
    assert online.final.mean == pytest.approx(np.mean(FINALS["online"]), rel=1e-12)
    assert {file.name for file in found.files} >= {"comparison.png", "learned.png", "learned.csv"}
    assert all(file.is_file() for file in found.files)
    learned = csv.DictReader(io.StringIO((tmp_path / "again" / "learned.csv").read_text()))
    assert {line["row"] for line in learned} == {"loss=mlp, schedule=online"}
    with pytest.raises(MetalossError, match="expected no rows, seeds or KEY"):
        run_request(Request(out=tmp_path, runs=folders, seeds="0"))


@pytest.mark.usefixtures("no_picture")
def test_notes_on_what_was_left_out_reach_the_tables(tmp_path, train, console):
    compare(STUDY, tmp_path / "study", train=train, console=console)
    folders = sorted((tmp_path / "study" / "online").glob("seed*/"))
    (folders[0] / "summary.json").unlink()
    found = compare_folders(folders, tmp_path / "out", console=console)
    assert "not finished" in found.notes[0]
    assert "not finished" in (tmp_path / "out" / "table.md").read_text()
    assert "not finished" in (tmp_path / "out" / "table.json").read_text()


@pytest.mark.usefixtures("no_picture")
def test_a_terminal_gets_bars_and_a_table(tmp_path, train):
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    compare(STUDY, tmp_path, train=train, console=console)
    text = console.file.getvalue()
    assert "━" in text
    assert "online, seed 2" in text
    assert "at best validation" in text


@pytest.fixture
def blocks(train, runs):
    """Train a row in two blocks: the second is twice as hard."""

    def in_blocks(overrides, folder, *, resume):
        status = train(overrides, folder, resume=resume)
        hard = folder.parent.parent.name == "hard"
        final = FINALS[folder.parent.name][int(folder.name.removeprefix("seed"))]
        runs.set_metrics(folder, final * (2 if hard else 1))
        return status

    return in_blocks


@pytest.mark.usefixtures("no_picture")
def test_a_study_in_blocks_is_summarized(tmp_path, blocks, console):
    study = replace(
        STUDY,
        blocks=(Block(name="easy"), Block(name="Hard", overrides=("task.label_noise=0.4",))),
        groups={"with noise": ("Hard",)},
        aside=("CE, stopped",),
        reference="online",
    )
    found = compare(study, tmp_path, train=blocks, console=console)
    names = ["table.csv", "seeds.csv", "table.md"]
    names += ["summary.md", "summary.csv", "ranks.png", "overview.png"]
    assert [file.name for file in found.files[:7]] == names
    assert all(file.stat().st_size for file in found.files[:7])
    runs = list(csv.DictReader(io.StringIO((tmp_path / "seeds.csv").read_text())))
    assert {(row["block"], row["row"]) for row in runs} == {
        (block, row) for block in ("easy", "Hard") for row in ("CE", "CE, stopped", "online")
    }
    (online,) = (row for row in runs if (row["block"], row["row"]) == ("easy", "online"))
    assert [float(value) for name, value in online.items() if name.startswith("seed ")] == (
        pytest.approx(FINALS["online"])
    )
    text = (tmp_path / "summary.md").read_text()
    assert "online beats every rival in 2 of 2 blocks (100%)" in text
    assert "## with noise: 1 block\n" in text
    rows = list(csv.DictReader(io.StringIO((tmp_path / "summary.csv").read_text())))
    (against_ce,) = (row for row in rows if (row["group"], row["row"]) == ("all", "CE"))
    gain = np.mean(np.subtract(FINALS["ce"], FINALS["online"])) * 1.5
    assert float(against_ce["gain"]) == pytest.approx(gain, rel=1e-12)
    assert f"wrote {tmp_path / 'ranks.png'}" in console.file.getvalue()


@pytest.mark.usefixtures("no_picture")
def test_a_row_that_a_block_is_without_is_met_in_the_others_alone(tmp_path, blocks, console):
    easy, hard = Block(name="easy", without=("CE",)), Block(name="Hard")
    study = replace(STUDY, blocks=(easy, hard), reference="online")
    compare(study, tmp_path, train=blocks, console=console)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "summary.csv").read_text())))
    assert {row["row"]: row["blocks"] for row in rows if row["row"] != "online"} == {
        "CE, stopped": "2",
        "CE": "1",
    }


@pytest.mark.usefixtures("no_picture")
def test_one_block_has_no_summary(tmp_path, blocks, console):
    compare(replace(STUDY, blocks=(Block(name="easy"),)), tmp_path, train=blocks, console=console)
    assert (tmp_path / "table.md").is_file()
    assert not list(tmp_path.glob("summary*"))


@pytest.mark.parametrize("name", ["jobs", "threads"])
def test_options_have_ranges(name):
    for value in (0, True):
        with pytest.raises(MetalossError, match=f"{name}={value}: expected a whole number"):
            Options(**{name: value})
