"""Meta-gradients judged by a share of the meta-batch: their mean is the exact one."""

import pytest
import torch
from torch.nn import functional as F

import metaloss
from metaloss.compose import compose
from metaloss.core.compilation.program import Compiled
from metaloss.errors import MetalossError
from metaloss.inner import problem as inner_problem
from metaloss.inner import stacked
from metaloss.inner.keys import sampled_rows
from metaloss.inner.problem import InnerProblem
from metaloss.inner.stacked import StackedProblem, member, stack
from metaloss.meta_optimizers.finite_difference import FiniteDifference
from metaloss.meta_optimizers.fitting import fitted
from metaloss.meta_optimizers.higher import Higher
from metaloss.meta_optimizers.mixed import Mixed
from metaloss.meta_optimizers.torchopt import TorchOpt

from .conftest import ROWS
from .test_rows import QUARTERS, mean_of, with_dropout

QUARTER = 0.25


def judged_by(one, share=QUARTER):
    return one._replace(problem=InnerProblem.of(one.problem, judge_rows=share))


def every_quarter(one, function, monkeypatch):
    """Return the function's results where each quarter of the meta-batch judges."""
    found = []
    for block in QUARTERS:
        rows = torch.tensor(block)
        for place in (inner_problem, stacked):
            monkeypatch.setattr(place, "sampled_rows", lambda key, share, total, rows=rows: rows)
        found.append(function(judged_by(one)))
    return found


@pytest.mark.parametrize("engine", [Mixed(), TorchOpt(), Higher()])
@pytest.mark.parametrize("model", ["attention", "dropout"])
def test_the_mean_over_quarters_is_the_exact_gradient(model, engine, case, distance, monkeypatch):
    one = case(with_dropout() if model == "dropout" else model, "adam", 2)
    exact = one.answer(Mixed())
    parts = every_quarter(one, lambda part: part.answer(engine), monkeypatch)
    assert distance(mean_of([part.gradient for part in parts]), exact.gradient) < 1e-9
    assert all(distance(part.gradient, exact.gradient) > 1e-2 for part in parts)
    losses = torch.stack([part.losses.meta_task for part in parts])
    torch.testing.assert_close(losses.mean(), exact.losses.meta_task)


def test_differences_are_judged_by_a_share_as_well(case, distance, monkeypatch):
    one = case("mlp", "sgd", 1)
    engine = FiniteDifference(epsilon=1e-4)
    parts = every_quarter(one, lambda part: part.answer(engine).gradient, monkeypatch)
    assert distance(mean_of(parts), one.answer(Mixed()).gradient) < 1e-6


def test_the_next_batch_judges_with_a_share_though_its_forward_pass_is_shared(
    case, distance, monkeypatch
):
    one = case(with_dropout(), "sgd", 1)
    batch, key = one.window.meta_batch, one.window.meta_key

    def adjoint(part):
        forward = part.problem.forward(part.state, batch, key)
        return part.problem.task_gradient(part.state, batch, key, forward)[0]

    exact = adjoint(one)
    assert distance(mean_of(every_quarter(one, adjoint, monkeypatch)), exact) < 1e-9


def test_targets_that_do_not_count_leave_the_mean_exact(case, distance, monkeypatch):
    one = case("mlp", "sgd", 1)
    targets = one.window.meta_batch.targets.clone()
    targets[[0, 1, 2]] = -100  # the first quarter has none that counts
    meta_batch = one.window.meta_batch._replace(targets=targets)
    one = one._replace(window=one.window._replace(meta_batch=meta_batch))
    parts = every_quarter(one, lambda part: part.answer(Mixed()).gradient, monkeypatch)
    assert distance(mean_of(parts), one.answer(Mixed()).gradient) < 1e-9


@pytest.mark.parametrize("shares", [True, False])
def test_many_members_are_each_of_them_alone(shares, case, distance):
    one = judged_by(case("norm_dropout", "adam", 2))
    engine, scales = Mixed(rows=QUARTER), (1.0, 0.7, 1.3)
    phis = [{name: s * value for name, value in one.phi.items()} for s in scales]
    together = one._replace(
        problem=StackedProblem.of(one.problem, shares_batches=shares),
        phi=stack(phis),
        state=stack([one.state] * 3),
        window=one.window if shares else stack([one.window] * 3),
    )
    found = together.answer(engine).gradient
    for index, phi in enumerate(phis):
        alone = one._replace(phi=phi).answer(engine).gradient
        assert distance(member(found, index), alone) < 1e-9


@pytest.mark.parametrize("unroll", [1, 2])
def test_a_traced_step_is_the_eager_one(unroll, case, distance):
    one, engine = judged_by(case("norm_dropout", "adam", unroll)), Mixed(rows=QUARTER)
    eager = one.answer(engine).gradient
    traced = Compiled(
        lambda phi, state, window: engine.meta_gradient(one.problem, phi, state, window),
        compiles=False,
    )
    assert distance(traced(one.phi, one.state, one.window).gradient, eager) < 1e-9


def test_judging_rows_are_drawn_anew_and_apart_from_training_rows(case):
    problem, window = judged_by(case("mlp", "sgd", 1)).problem, case("mlp", "sgd", 1).window
    keys = torch.arange(40) * 2**33 + 17
    drawn = [problem.judging(window.meta_batch, key).rows for key in keys]
    assert all(len(rows) == ROWS // 4 for rows in drawn)
    assert len({tuple(rows.tolist()) for rows in drawn}) == ROWS
    trained = [sampled_rows(key, QUARTER, ROWS) for key in keys]
    alike = sum(torch.equal(a, b) for a, b in zip(drawn, trained, strict=True))
    assert alike < 15  # 5 are expected


def test_a_model_that_looks_across_rows_is_refused(case):
    one = judged_by(case("shared", "sgd", 1))
    with pytest.raises(MetalossError, match=r"schedule.judge_rows=0.25.*: use judge_rows=1"):
        fitted(one.problem, Mixed(), one.phi, one.state, one.window)


def test_a_task_loss_that_is_no_mean_over_rows_is_refused(case):
    one = judged_by(case("mlp", "sgd", 1))

    def worst(outputs, targets):
        return F.cross_entropy(outputs, targets, reduction="none").max()

    problem = InnerProblem.of(one.problem, task_loss=worst)
    with pytest.raises(MetalossError, match="the task loss is not a mean over the rows"):
        fitted(problem, Mixed(), one.phi, one.state, one.window)


@pytest.mark.parametrize("schedule", ["online", "offline"])
def test_other_shares_are_refused(schedule):
    with pytest.raises(
        MetalossError, match=r"schedule.judge_rows=0.*: expected a number in \(0, 1"
    ):
        compose([f"schedule={schedule}", "schedule.judge_rows=0"])


def test_a_search_has_no_judging_rows():
    words = ["meta_optimizer=cmaes", "loss=taylor", "schedule=offline", "schedule.judge_rows=0.5"]
    with pytest.raises(MetalossError, match=r"judge_rows=0.5: meta_optimizer=cmaes searches"):
        metaloss.train([*words, "task=digits", "tracker=[]"])


def test_seeds_together_are_the_seeds_alone(tmp_path):
    words = ["task=digits", "task.subset=200", "model.hidden=[8]", "steps=6", "start.steps=5"]
    words += ["schedule=online", "schedule.meta_batch=next", "schedule.judge_rows=0.25"]
    words += ["meta_optimizer.rows=0.25", "tracker=[]", "compile=trace"]
    many = metaloss.train([*words, "seeds=2", f"output={tmp_path / 'many'}"])
    alone = metaloss.train([*words, "seed=1", f"output={tmp_path / 'alone'}"])
    for name, value in alone.loss.named_parameters():
        torch.testing.assert_close(dict(many[1].loss.named_parameters())[name], value)
