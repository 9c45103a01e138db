"""A whole comparison whose rows are tuned."""

import csv
import io
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace

import pytest
from rich.console import Console

import metaloss
from metaloss.compose import read_file
from metaloss.errors import MetalossError
from metaloss.study.compare import Options, Request, compare, run_request
from metaloss.study.launch.jobs import State, plan_jobs
from metaloss.study.launch.tuning import check_finals, settle
from metaloss.study.spec.spec import Block, Study

from .tuned_rows import CE, GCE, HIGH, PLAIN, STUDY, FakeTrainer, better_low_on_clean, metrics

pytestmark = pytest.mark.usefixtures("made_up_runs")


CLEAN = Block(name="clean")
NOISY = Block(name="noisy", overrides=("task.label_noise=0.5",), without=("plain",))
BLOCKS = replace(STUDY, blocks=(CLEAN, NOISY), description="digits")


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=100)


@pytest.fixture
def whole(tmp_path, runs, console):
    train = FakeTrainer(runs, tmp_path, better_low_on_clean)
    return compare(BLOCKS, tmp_path, train=train, console=console), train


def test_every_block_tunes_by_itself_and_then_trains_what_it_has(tmp_path, whole):
    found, train = whole
    folders = [folder for folder, _ in train.calls]
    assert Counter(folder.rpartition("/")[0] for folder in folders) == dict.fromkeys(
        [
            *("clean/tuning/ce/0", "clean/tuning/ce/1", "noisy/tuning/ce/0", "noisy/tuning/ce/1"),
            *("clean/ce", "clean/gce", "clean/plain", "noisy/ce", "noisy/gce"),
        ],
        2,
    )
    last = max(index for index, folder in enumerate(folders) if "tuning" in folder)
    assert last == 7, "tuning comes first"
    rates = {
        path.relative_to(tmp_path).parts[:2]: read_file(path)["inner"]["lr"]
        for path in tmp_path.glob("*/*ce/seed0/config.yaml")
    }
    assert rates == {
        ("clean", "ce"): 0.01, ("clean", "gce"): 0.01,
        ("noisy", "ce"): 0.5, ("noisy", "gce"): 0.5,
    }  # fmt: skip
    assert {name: len(table.lines) for name, table in found.tables.items()} == {
        "clean": 3, "noisy": 2,
    }  # fmt: skip


def test_what_was_tried_and_chosen_is_written(tmp_path, whole):
    found, _ = whole
    assert tmp_path / "tuning.csv" in found.files
    rows = list(csv.DictReader(io.StringIO((tmp_path / "tuning.csv").read_text())))
    assert rows[0] == {
        "block": "clean", "row": "CE", "setting": "0", "words": "inner.lr=0.01", "n": "2",
        "metric": "valid/error", "mean": "0.1", "diverged": "0", "chosen": "yes",
    }  # fmt: skip
    assert [(row["block"], row["chosen"]) for row in rows] == [
        ("clean", "yes"), ("clean", "no"), ("noisy", "no"), ("noisy", "yes"),
    ]  # fmt: skip
    text = (tmp_path / "table.md").read_text()
    assert "2 settings a row, seeds 100–101, chosen by the validation error" in text
    assert "| CE | inner.lr=0.01 | inner.lr=0.5 |" in text
    assert "- 'GCE' takes what was chosen for 'CE'" in text
    noisy = (tmp_path / "noisy" / "table.md").read_text()
    assert "- 'CE' is tuned: inner.lr=0.5 (of 2 settings, seeds 100–101" in noisy
    assert "- 'GCE' is tuned as 'CE': inner.lr=0.5" in noisy


def test_the_same_call_again_trains_nothing_and_writes_the_same(tmp_path, whole, console):
    found, train = whole
    before = {file: file.read_bytes() for file in found.files if file.suffix != ".png"}
    train.calls.clear()
    again = run_request(Request(out=tmp_path), console=console)
    assert train.calls == []
    assert again.tables == found.tables
    assert {file: file.read_bytes() for file in before} == before
    assert "8 of 8 tuning runs are finished already" in console.file.getvalue()


def test_other_seeds_change_the_final_runs_alone(tmp_path, whole, console, monkeypatch):
    _, train = whole
    train.calls.clear()
    monkeypatch.setattr("metaloss.study.compare.ProcessTrainer", lambda **_: nullcontext(train))
    run_request(Request(out=tmp_path, seeds="0-2"), console=console)
    assert sorted(train.calls) == [
        (f"{row}/seed2", 1)
        for row in ("clean/ce", "clean/gce", "clean/plain", "noisy/ce", "noisy/gce")
    ]
    with pytest.raises(MetalossError, match="seed 100 is in the study's seeds and in its tuning"):
        run_request(Request(out=tmp_path, seeds="99-100"), console=console)


def test_an_interrupt_while_tuning_loses_nothing(tmp_path, runs, console):
    train = FakeTrainer(runs, tmp_path, better_low_on_clean)

    def interrupted(overrides, folder, *, resume):
        if len(train.calls) == 3:
            raise KeyboardInterrupt
        return train(overrides, folder, resume=resume)

    with pytest.raises(KeyboardInterrupt):
        compare(BLOCKS, tmp_path, train=interrupted, console=console, options=Options(jobs=1))
    text = console.file.getvalue()
    assert "stopped: 3 of 8 tuning runs are finished" in text
    assert "valid/error" in text, "what chooses is shown"
    assert "test/error" not in text
    compare(BLOCKS, tmp_path, train=train, console=console)
    assert len(train.calls) == len(set(train.calls)) == 8 + 10


def test_tuning_seeds_of_a_setting_are_one_program(tmp_path, runs, console):
    study = replace(STUDY, rows=(CE,), together=3, tuning_seeds=(100, 101, 102))
    train = FakeTrainer(runs, tmp_path, better_low_on_clean)
    found = compare(study, tmp_path, train=train, console=console)
    assert sorted(train.calls) == [("ce", 2), ("tuning/ce/0", 3), ("tuning/ce/1", 3)]
    assert tmp_path / "tuning.csv" in found.files, "without blocks as well"
    assert "'CE' is tuned: inner.lr=0.5" in (tmp_path / "table.md").read_text()


def test_a_search_without_a_sound_setting_is_noted(tmp_path, runs, console):
    study = replace(STUDY, rows=(CE,), tuning_seeds=(100,))
    train = FakeTrainer(
        runs, tmp_path, lambda folder: metrics(None if "tuning" in folder else 0.1, "diverged")
    )
    found = compare(study, tmp_path, train=train, console=console)
    assert "'CE': each of its settings has a run that diverged" in found.notes[0]
    assert "the first one is used" in (tmp_path / "table.md").read_text()


def test_a_run_of_another_setting_is_never_reused(tmp_path, whole, console):
    _, train = whole
    lower = replace(CE, tune=(("inner.lr=0.02",), HIGH))
    with pytest.raises(MetalossError, match=r"was trained with inner\.lr=0\.01; expected"):
        compare(replace(BLOCKS, rows=(lower, GCE, PLAIN)), tmp_path, train=train, console=console)


def test_checking_rows_leaves_those_alone_whose_setting_is_not_known(tmp_path, runs):
    # The row's own words are not a run's: what lies in its folder has a setting as well.
    job = plan_jobs(settle(STUDY, []), tmp_path, resolve=runs.compose)[0]
    runs.write_run(job.folder, [*job.overrides, *HIGH])
    check_finals(STUDY, tmp_path, runs.compose)
    assert job.state is State.missing


def test_real_runs_are_tuned_and_compared(tmp_path, console):
    common = ("task=digits", "model=mlp", "model.hidden=[8]", "steps=20", "eval_every=20")
    rates = (("inner.lr=1e-6",), ("inner.lr=0.5",))
    study = Study(rows=(replace(CE, tune=rates),), seeds=(0,), common=common, tuning_seeds=(100,))

    def here(overrides, folder, *, resume):
        return metaloss.train([*overrides, f"output={folder}"]).summary.status

    compare(study, tmp_path, train=here, console=console, options=Options(jobs=1))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "tuning.csv").read_text())))
    assert [row["chosen"] for row in rows] == ["no", "yes"], "the first rate moves nothing"
    assert float(rows[1]["mean"]) < float(rows[0]["mean"])
    final = read_file(tmp_path / "ce" / "seed0" / "config.yaml")
    assert (final["inner"]["lr"], final["seed"]) == (0.5, 0)
