from dataclasses import replace

import pytest

from metaloss.errors import MetalossError
from metaloss.study.compare import compare
from metaloss.study.launch.tuning import Score, plan_trials, score_settings, settle
from metaloss.study.spec.spec import Row
from metaloss.study.tables import tuning_text
from metaloss.study.tables.render import to_csv

from .tuned_rows import CE, GCE, HIGH, LOW, PLAIN, STUDY, FakeTrainer, better_low_on_clean, metrics

pytestmark = pytest.mark.usefixtures("made_up_runs")


@pytest.fixture
def scored(tmp_path, runs):
    """Judge the two settings of CE whose four runs have the given metrics."""

    def scored(*given):
        study = replace(STUDY, rows=(CE,), reference=None)
        trials = plan_trials(study, tmp_path, runs.compose)
        train = FakeTrainer(runs, tmp_path, lambda _: next(rest))
        rest = iter(given)
        for trial in trials:
            for job in trial.jobs:
                train(list(job.overrides), job.folder, resume=False)
        return score_settings(trials)

    return scored


def chosen(scores):
    return [score.setting for score in scores if score.chosen]


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


def test_the_validation_metric_chooses_whatever_the_test_metric_says(scored):
    scores = scored(
        metrics(0.3, test=0.0), metrics(0.1, test=0.0), metrics(0.1, test=1.0), metrics(0.2, test=1)
    )
    assert [score.mean for score in scores] == pytest.approx([0.2, 0.15], rel=1e-12)
    assert chosen(scores) == [1]
    assert {score.metric for score in scores} == {"valid/error"}


def test_more_is_better_where_the_goal_says_so(scored):
    assert chosen(scored(*(metrics(value, goal="max") for value in (0.9, 0.9, 0.8, 0.8)))) == [0]


DOWN = metrics(0.5, status="diverged")


@pytest.mark.parametrize(
    "bad",
    [metrics(0.0, status="diverged"), metrics(None), metrics(float("nan")), {"metrics": {}}],
    ids=["diverged", "none", "nan", "nothing"],
)
def test_a_setting_that_went_wrong_loses(scored, bad):
    scores = scored(metrics(0.0), bad, metrics(0.9), metrics(0.9))
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
def test_where_every_setting_has_diverged_runs_the_least_bad_is_chosen(scored, trials):
    scores = scored(*trials)
    assert chosen(scores) == [1]
    assert not any(score.sound for score in scores)


def test_of_equal_settings_the_first_is_chosen(scored):
    assert chosen(scored(*(metrics(0.25) for _ in range(4)))) == [0]


def test_where_every_setting_went_wrong_the_first_is_chosen(scored):
    scores = scored(*(metrics(None, status="diverged") for _ in range(4)))
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
