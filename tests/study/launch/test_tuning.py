import csv
import io
import json
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
from metaloss.study.launch.tuning import Score, check_finals, judge, plan_trials, settle
from metaloss.study.spec.spec import Block, Row, Study
from metaloss.study.tables import tuning_text
from metaloss.study.tables.render import to_csv

LOW, HIGH = ("inner.lr=0.01",), ("inner.lr=0.5",)
CE = Row(name="CE", overrides=("schedule=static", "loss=cross_entropy"), tune=(LOW, HIGH))
GCE = Row(name="GCE", overrides=("schedule=static", "loss=gce"), tuned_as="CE")
PLAIN = Row(name="plain", overrides=("schedule=static", "loss=focal"))
STUDY = Study(
    rows=(CE, GCE, PLAIN),
    seeds=(0, 1),
    common=("task=digits", "steps=200"),
    reference="CE",
    tuning_seeds=(100, 101),
)
CLEAN = Block(name="clean")
NOISY = Block(name="noisy", overrides=("task.label_noise=0.5",), without=("plain",))
BLOCKS = replace(STUDY, blocks=(CLEAN, NOISY), description="digits")


class FakeTrainer:
    """Writes runs whose metrics come from a function of the folder, relative to ``out``."""

    def __init__(self, runs, out, metrics):
        self.runs, self.out, self.metrics, self.calls = runs, out, metrics, []

    def __call__(self, overrides, folder, *, resume):
        words = dict(word.split("=", 1) for word in overrides)
        count = int(words.pop("seeds", 1))
        for seed in range(int(words["seed"]), int(words["seed"]) + count):
            words["seed"] = str(seed)
            place = folder / f"seed{seed}" if count > 1 else folder
            self.write(place, [f"{key}={value}" for key, value in words.items()])
        self.calls.append((folder.relative_to(self.out).as_posix(), count))
        return "ok"

    def write(self, folder, words):
        self.runs.write_run(folder, words)
        path = folder / "summary.json"
        summary = json.loads(path.read_text())
        summary |= self.metrics(folder.relative_to(self.out).as_posix())
        path.write_text(json.dumps(summary))


def metrics(valid, test=0.2, status="ok", goal="min"):
    return {
        "metrics": {"valid/error": valid, "test/error": test},
        "status": status,
        "goal": goal,
    }


def better_low_on_clean(folder):
    """Where the labels are right the first setting is better by validation, elsewhere the second.

    By the test metric it is the other way round.
    """
    if "tuning/" not in folder:
        return metrics(0.3)
    good = ("/0/" in folder) == folder.startswith("clean")
    return metrics(0.1, test=0.9) if good else metrics(0.2, test=0.05)


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=100)


@pytest.fixture(autouse=True)
def fast(monkeypatch, runs):
    monkeypatch.setattr("metaloss.study.compare.compose", runs.compose)
    monkeypatch.setattr(
        "metaloss.study.outputs.plot_comparison", lambda groups, table, path, **_: path
    )


@pytest.fixture
def judged(tmp_path, runs):
    """Judge the two settings of CE whose four runs have the given metrics."""

    def judged(*given):
        study = replace(STUDY, rows=(CE,), reference=None)
        trials = plan_trials(study, tmp_path, runs.compose)
        train = FakeTrainer(runs, tmp_path, lambda _: next(rest))
        rest = iter(given)
        for trial in trials:
            for job in trial.jobs:
                train(list(job.overrides), job.folder, resume=False)
        return judge(trials)

    return judged


def chosen(scores):
    return [score.setting for score in scores if score.chosen]


# ------------------------------------------------------------------------------ which is chosen


def test_trials_have_folders_seeds_and_words_of_their_own(tmp_path, runs):
    trials = plan_trials(STUDY, tmp_path, runs.compose)
    assert [(trial.row, trial.setting, trial.words) for trial in trials] == [
        ("CE", 0, LOW), ("CE", 1, HIGH),
    ]  # fmt: skip
    jobs = trials[1].jobs
    assert [job.folder for job in jobs] == [
        tmp_path / "tuning" / "ce" / "1" / f"seed{seed}" for seed in (100, 101)
    ]
    assert jobs[1].config["inner"]["lr"] == 0.5
    assert jobs[1].config["seed"] == 101


def test_the_validation_metric_chooses_whatever_the_test_metric_says(judged):
    scores = judged(
        metrics(0.3, test=0.0), metrics(0.1, test=0.0), metrics(0.1, test=1.0), metrics(0.2, test=1)
    )
    assert [score.mean for score in scores] == pytest.approx([0.2, 0.15], rel=1e-12)
    assert chosen(scores) == [1]
    assert {score.metric for score in scores} == {"valid/error"}


def test_more_is_better_where_the_goal_says_so(judged):
    assert chosen(judged(*(metrics(value, goal="max") for value in (0.9, 0.9, 0.8, 0.8)))) == [0]


DOWN = metrics(0.5, status="diverged")


@pytest.mark.parametrize(
    "bad",
    [metrics(0.0, status="diverged"), metrics(None), metrics(float("nan")), {"metrics": {}}],
    ids=["diverged", "none", "nan", "nothing"],
)
def test_a_setting_that_went_wrong_loses(judged, bad):
    scores = judged(metrics(0.0), bad, metrics(0.9), metrics(0.9))
    assert chosen(scores) == [1]
    assert not scores[0].sound


@pytest.mark.parametrize(
    "trials",
    [
        (DOWN, DOWN, DOWN, metrics(0.9)),
        (DOWN, metrics(0.5), metrics(0.1), metrics(0.1, status="diverged")),
    ],
    ids=["fewer", "as many, and better"],
)
def test_where_every_setting_has_diverged_runs_the_least_bad_is_chosen(judged, trials):
    scores = judged(*trials)
    assert chosen(scores) == [1]
    assert not any(score.sound for score in scores)


def test_of_equal_settings_the_first_is_chosen(judged):
    assert chosen(judged(*(metrics(0.25) for _ in range(4)))) == [0]


def test_where_every_setting_went_wrong_the_first_is_chosen(judged):
    scores = judged(*(metrics(None, status="diverged") for _ in range(4)))
    assert chosen(scores) == [0]
    assert [score.diverged for score in scores] == [2, 2]


def test_chosen_words_come_last_and_reach_the_rows_that_are_tuned_alike():
    scores = [
        Score(row="CE", setting=k, words=w, n=2, metric="m", mean=0.1, diverged=0, chosen=k == 1)
        for k, w in enumerate(CE.tune)
    ]
    study = settle(STUDY, scores)
    assert [row.overrides for row in study.rows] == [
        (*CE.overrides, *HIGH), (*GCE.overrides, *HIGH), PLAIN.overrides,
    ]  # fmt: skip
    assert not any(row.tune or row.tuned_as for row in study.rows)
    assert study.tuning_seeds == ()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (Row(name="CE", tune=(LOW, ("inner.rl=1",))), "row 'CE, setting 1': .*rl"),
        (Row(name="GCE", overrides=("loss=gec",), tuned_as="CE"), "row 'GCE': .*'gce'"),
        (Row(name="plain", overrides=("loss=fcal",)), "row 'plain': .*'focal'"),
    ],
)
def test_a_wrong_word_is_told_before_anything_is_tuned(tmp_path, runs, row, said):
    rows = tuple(row if old.name == row.name else old for old in STUDY.rows)
    train = FakeTrainer(runs, tmp_path, better_low_on_clean)
    with pytest.raises(MetalossError, match=said):
        compare(replace(STUDY, rows=rows), tmp_path, train=train)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------- a whole comparison


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
    assert "8 of 8 tuning runs are here already" in console.file.getvalue()


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
    with pytest.raises(MetalossError, match=r"was trained with inner\.lr=0\.01, asked for"):
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


# ------------------------------------------------------------------------------------- as text


def test_a_setting_without_words_and_a_missing_number_have_a_look():
    study = replace(STUDY, rows=(replace(CE, tune=((), HIGH)),))
    scores = [
        Score(row="CE", setting=0, words=(), n=1, metric="valid/mse", mean=0.1, diverged=0,
              chosen=True),
        Score(row="CE", setting=1, words=HIGH, n=1, metric="valid/mse", mean=None, diverged=1),
    ]  # fmt: skip
    assert tuning_text.choices(study, scores) == [
        "'CE' is tuned: as listed (of 2 settings, seeds 100–101, chosen by the validation mse)"
    ]
    assert (
        to_csv(tuning_text.numbers({"": scores})).splitlines()[2]
        == ",CE,1,inner.lr=0.5,1,valid/mse,,1,no"
    )


def test_the_table_of_choices_is_aligned():
    study = replace(STUDY, rows=(CE,))
    score = Score(row="CE", setting=0, words=HIGH, n=1, metric="valid/mse", mean=0.1, diverged=0,
                  chosen=True)  # fmt: skip
    text = tuning_text.to_text(study, {"a | b": [score], "a much longer name": []})
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert table == [
        "|    |       a \\| b | a much longer name |",
        "|----|-------------:|-------------------:|",
        "| CE | inner.lr=0.5 |                  – |",
    ]


def test_seeds_are_shown_as_ranges():
    assert tuning_text.show_seeds((3, 1, 2, 9, 11, 12)) == "1–3, 9, 11–12"
