import io
import json
import math

import numpy as np
import pytest
from rich.console import Console

from metaloss.compose import compose
from metaloss.data.images.digits import Digits
from metaloss.errors import MetalossError
from metaloss.study.advise import TUNING_SEEDS, advise, study_of
from metaloss.study.launch.tuning import Score, plan_trials
from metaloss.study.spec.study_file import load_study, to_yaml
from metaloss.study.tables import advice as advices
from metaloss.study.tables import advice_text, table_text
from metaloss.study.tables.render import fitting, to_rich
from metaloss.study.tables.statistics import paired_wilcoxon

from .launch.tuned_rows import FakeTrainer

WORDS = ("task=digits", "model=linear", "steps=100", "inner.lr=0.09", "eval_every=100")
# Errors on trusted rows that are held out, and on test rows, by the folders of the rows.
CHOSEN = {"generalised-cross-entropy-trusted-rows": 0.05, "learned-loss-trusted-rows": 0.06}
TESTED = {"cross-entropy": 0.2, "generalised-cross-entropy-trusted-rows": 0.1}


def made_up(folder):
    """Return a run's metrics: the second setting of each row is the best one on held-out rows."""
    parts, seed = folder.split("/"), int(folder.rpartition("seed")[2])
    row = parts[1] if parts[0] == "tuning" else parts[0]
    if parts[0] == "tuning":
        error = CHOSEN.get(row, 0.3) + 0.1 * (parts[2] != "1")
    else:
        error = TESTED.get(row, 0.12) + 0.001 * seed
    # The metric of the rows that judge would choose otherwise.
    return {"metrics": {"valid/error": 1 - error, "test/error": error}, "goal": "min"}


@pytest.fixture
def advised(tmp_path, runs, monkeypatch, made_up_runs):
    """Advise on made-up runs; return the result, the trainer and what was printed."""
    monkeypatch.setattr("metaloss.study.advise.compose", runs.compose)
    console = Console(file=io.StringIO(), width=80)
    train = FakeTrainer(runs, tmp_path, made_up)
    found = advise(WORDS, tmp_path, seeds="0-5", train=train, console=console)
    return found, train, console.file.getvalue()


def test_trusted_rows_choose_and_test_rows_report(advised, tmp_path):
    found, train, shown = advised
    advice = found.advice
    assert (advice.use, advice.learned) == ("generalised cross-entropy + trusted rows", False)
    assert advice.words == ("inner.lr=0.03", "steps=100"), "the second setting"
    assert advice.mean == pytest.approx(np.mean(0.1 + 0.001 * np.arange(6)), rel=1e-12)
    assert advice.other.row == "learned loss + trusted rows"
    assert advice.other.difference == pytest.approx(-0.02, rel=1e-9)
    assert (advice.other.better, advice.other.pairs, advice.other.verdict) == (6, 6, "better")
    for said in ("not the learned loss", "6 of 6 seeds, p = 0.031", "lower by 0.0200"):
        assert said in found.paragraph
    held_out = {name for name, _ in train.calls if name.startswith("tuning/")}
    assert len(held_out) == 7 * 4 + 3 * 2
    written = json.loads((tmp_path / "advice.json").read_text())
    assert written["paragraph"] == found.paragraph
    assert written["other"]["p"] == paired_wilcoxon([0] * 6, [1] * 6)
    assert {one["tuning_steps"] for one in written["ranking"]} == {6 * 100 * len(TUNING_SEEDS)}
    assert written["command"] in shown
    again = advise(
        WORDS, tmp_path, seeds="0-5", train=_refuses, console=Console(file=io.StringIO())
    )
    assert again.paragraph == found.paragraph, "nothing is trained again"


def _refuses(overrides, folder, *, resume):
    raise AssertionError(folder)


def test_methods_have_equal_compute_and_the_same_rows(tmp_path):
    config = compose([*WORDS, "task.imbalance=20", "inner.schedule=cosine", "inner.period=100"])
    task = Digits(imbalance=20).build(0)
    study = study_of(config, task, WORDS, "0-1")
    assert {"logit adjustment", "logit adjustment + trusted rows"} <= {r.name for r in study.rows}
    trials = plan_trials(study, tmp_path, compose)  # raises unless the costs are equal
    long = next(trial for trial in trials if trial.setting == 3)
    assert {"steps=300", "inner.period=300"} <= set(long.words)
    assert {job.config["task"]["folds"] for trial in trials for job in trial.jobs} == {4}
    assert {job.config["task"]["split_seed"] for trial in trials for job in trial.jobs} == {0}
    (tmp_path / "study.yaml").write_text(to_yaml(study))
    assert load_study(tmp_path / "study.yaml") == study


def test_settings_of_unequal_cost_are_refused(tmp_path, runs):
    config = compose(WORDS)
    study = study_of(config, Digits().build(0), WORDS, "0-1")
    rows = [row for row in study.rows if row.name in ("cross-entropy", "learned loss")]
    lopsided = type(study)(
        rows=(rows[0], type(rows[1])(name="x", overrides=rows[1].overrides, tune=rows[1].tune[:1])),
        seeds=(0,), tuning_seeds=(100,), common=WORDS, equal="steps",
    )  # fmt: skip
    with pytest.raises(MetalossError, match=r"'x': its settings cost 300 steps.* 600: expected"):
        plan_trials(lopsided, tmp_path, runs.compose)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("task=digits", "loss=taylor"), "'loss=taylor': advise chooses schedule, loss"),
        (("task=digits", "seed=3"), "'seed=3': expected --seeds and --out"),
        (("task=digits", "task.folds=3"), "task.folds: advise sets it itself"),
        (("task=digits", "+preset=auto"), "'.preset=auto': advise chooses schedule, loss"),
        (("task=digits", "inner.period=7"), "inner.period=7 has no effect: it needs inner.sch"),
        (("task=tiny_text",), "tiny_text"),
        (("task=digits", "stpes=3"), "steps"),
    ],
)
def test_words_that_cannot_be_advised_on(tmp_path, words, said):
    with pytest.raises(MetalossError, match=said):
        advise(words, tmp_path / "out", train=_refuses)
    assert not (tmp_path / "out").exists()


def advice_of(block, tested, scores):
    """Advise by scores on one seed, or on several."""
    scores = {row: np.atleast_1d(values) for row, values in scores.items()}
    given = [
        Score(row=row, setting=0, words=("a=1",), n=1, metric="test/error", mean=values.mean(),
              diverged=0, chosen=True, values=dict(enumerate(values.tolist())))
        for row, values in scores.items()
    ]  # fmt: skip
    return advices.advise(block(tested), given, ["learned"])


UP, SAME = [0.2, 0.21, 0.22, 0.2, 0.21, 0.22], [0.1] * 6


@pytest.mark.parametrize(
    ("learned", "plain", "said"),
    [
        (SAME, UP, "So the learned loss is worth it here."),
        (UP, SAME, "The test rows contradict the choice: plain is better on them."),
        (
            SAME,
            [0.1, 0.11, 0.09, 0.1, 0.11, 0.09],
            "plain does as well, and its steps cost a third",
        ),
        (SAME[:3], UP[:3], "3 seeds are too few for a test, which needs 6."),
        (SAME, SAME, "0.100, the same on every seed"),
    ],
)
def test_the_paragraph_says_how_certain_the_learned_loss_is(block, learned, plain, said):
    advice = advice_of(block, {"plain": plain, "learned": learned}, {"plain": 0.3, "learned": 0.2})
    assert advice.learned
    assert said in advice_text.paragraph(advice)


def test_a_fixed_loss_is_advised_where_trusted_rows_say_so_whatever_the_test_rows_say(block):
    advice = advice_of(block, {"plain": UP, "learned": SAME}, {"plain": 0.2, "learned": 0.3})
    text = advice_text.paragraph(advice)
    assert text.startswith("Use plain (a=1).")
    assert "It is not the learned loss" in text
    assert "The test rows contradict the choice: learned is better" in text


def test_the_best_other_method_on_the_test_rows_is_named(block):
    tested = {"plain": UP, "robust": [0.15] * 6, "learned": SAME}
    scores = {"plain": 0.3, "robust": 0.4, "learned": 0.2}
    advice = advice_of(block, tested, scores)
    assert (advice.other.row, advice.seen.row, advice.seen.better) == ("plain", "robust", 6)
    assert "the best other method without a learned loss is robust" in advice_text.paragraph(advice)


def test_runs_that_were_lost_are_said_and_rank_a_row_last(block):
    lost = [*SAME[:5], math.nan]
    tested = {"plain": UP, "lucky": lost, "robust": [0.15] * 6, "learned": lost}
    scores = {"plain": 0.3, "lucky": 0.5, "robust": 0.4, "learned": 0.2}
    advice = advice_of(block, tested, scores)
    assert advice.seen.row == "robust", "lucky has the better mean of fewer runs"
    assert (advice.n, advice.lost) == (5, 1)
    said = advice_text.paragraph(advice)
    assert "Its test error is 0.100 ± 0.00 over 5 of 6 seeds; the other runs have no" in said
    turned = advice_of(block, tested, {"plain": 0.2, "lucky": 0.5, "robust": 0.4, "learned": 0.3})
    assert "0.100 (1 of its runs have no finite value): plain is higher" in advice_text.paragraph(
        turned
    )


def test_a_row_that_lost_more_runs_is_not_called_better(block):
    seven, lost = [0.2, *UP], [*SAME, math.nan]
    for tested, verdict in (
        ({"plain": seven, "learned": lost}, "level"),
        ({"plain": [*UP, math.nan], "learned": lost}, "better"),
        ({"plain": [*UP, math.nan], "learned": [*SAME, 0.1]}, "better"),
    ):
        advice = advice_of(block, tested, {"plain": 0.3, "learned": 0.2})
        assert advice.other.verdict == verdict


@pytest.mark.parametrize(("ahead", "learned"), [(0.013, True), (0.011, False)])
def test_a_learned_loss_must_be_ahead_by_more_than_a_standard_error(block, ahead, learned):
    spread = np.array([-3.0, 3.0, -1.0, 1.0])
    gaps = ahead + spread * 0.012 / (spread.std(ddof=1) / 2)  # a standard error of 0.012
    scores = {"plain": np.full(4, 0.3), "learned": 0.3 - gaps}
    advice = advice_of(block, {"plain": UP, "learned": SAME}, scores)
    assert (advice.lead, advice.error) == pytest.approx((ahead, 0.012), rel=1e-6)
    assert advice.learned is learned
    said = "ahead by 0.0110, no more than the standard error of 0.0120"
    assert (said in advice_text.paragraph(advice)) is not learned


def test_more_is_better_where_the_goal_says_so(block):
    table = block({"plain": SAME, "learned": UP}, goal="max", metric="test/accuracy")
    scores = [
        Score(row=row, setting=0, words=(), n=1, metric="test/accuracy", mean=value, diverged=0,
              chosen=True, values={100: value})
        for row, value in {"plain": 0.1, "learned": 0.2}.items()
    ]  # fmt: skip
    advice = advices.advise(table, scores, ["learned"])
    assert advice.learned
    assert advice.other.verdict == "better"
    assert "learned is higher by 0.110, better on 6 of 6" in advice_text.paragraph(advice)


@pytest.mark.parametrize("width", [80, 100, 160])
def test_names_are_whole_in_a_narrow_terminal(block, width):
    name = "generalised cross-entropy + trusted rows"
    table = block({"cross-entropy": UP, name: SAME})
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(to_rich(fitting(table_text.shown(table), width, table_text.LEAST_NEEDED), None))
    line = next(one for one in console.file.getvalue().splitlines() if one.strip().startswith(name))
    assert "0.1000 ± 0.0000" in line
    assert ("0.031" in line) is (width > 80), "p goes first"


def test_no_finite_score_gives_no_advice(block):
    with pytest.raises(MetalossError, match="no advice: every method diverged"):
        advices.advise(block({"plain": UP, "learned": SAME}), [], ["learned"])
