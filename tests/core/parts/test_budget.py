"""What a budget buys, and that a resumed run keeps it."""

import time

import pytest
import torch

import metaloss
from metaloss.compose import compose
from metaloss.contracts import Plan
from metaloss.core.parts import budget
from metaloss.core.parts.budget import choose
from metaloss.core.storage.run_folder import read_rows
from metaloss.errors import MetalossError

WORDS = ["task=digits", "task.subset=200", "model.hidden=[8]", "start.steps=20", "tracker=[]"]
WORDS += [
    "schedule=online",
    "eval_every=2",
    "log_every=2",
    "checkpoint_every=4",
    "compile=off",
    "guard=off",
]


def costs(share, unroll):
    """A step of the walk back costs 3 plain steps for all rows, and so does the judge."""
    return 1.0, unroll + (unroll + 1) * share


@pytest.mark.parametrize(
    ("allowed", "unroll", "expected"),
    [
        (3.0, 1, (1.0, 1, 1)),
        (2.2, 1, (0.5, 1, 1)),
        (1.5, 1, (0.25, 1, 1)),
        (1.3, 10, (0.25, 10, 10)),
        (1.1, 10, (0.25, 28, 10)),
        (1.04, 10, (0.25, 38, 5)),
        (1.01, 10, (0.25, 50, 1)),
    ],
)
def test_rows_are_reduced_first_then_meta_steps_become_rarer_then_unrolls_shorter(
    allowed, unroll, expected
):
    chosen = choose(allowed, unroll, (1.0, 0.5, 0.25), costs)
    assert chosen[:3] == expected
    assert chosen.price <= allowed + 1e-12


def test_without_a_share_of_rows_the_period_does_it():
    assert choose(1.5, 1, (1.0,), costs)[:3] == (1.0, 4, 1)


def test_what_is_too_cheap_is_refused():
    with pytest.raises(MetalossError, match=r"budget=1.001: a meta-step costs 0.50 .* ≥ 1.01"):
        choose(1.001, 4, (1.0, 0.25), costs)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["schedule.budget=1"], "schedule.budget=1.*: expected a number > 1"),
        (["schedule.budget=2", "schedule.period=4"], "budget=2 chooses schedule.period"),
        (["schedule.budget=2", "schedule.judge_rows=0.5"], "budget=2 chooses schedule.judge_rows"),
        (["schedule.budget=2", "meta_optimizer.rows=0.5"], "budget=2 chooses meta_optimizer.rows"),
        (["schedule.budget=2", "meta_optimizer=higher"], "meta_optimizer=higher needs all rows"),
        (["schedule.budget=2", "meta_optimizer.rule=l2rw"], "rule=l2rw has no choice"),
    ],
)
def test_what_contradicts_a_budget_is_refused(words, message):
    with pytest.raises(MetalossError, match=message):
        metaloss.train([*WORDS, *words])


def test_what_was_chosen_is_stored_and_not_measured_again(tmp_path, monkeypatch):
    words = [*WORDS, "schedule.budget=1.5", "steps=4"]
    with monkeypatch.context() as patch:
        patch.setattr(budget, "_measuring", lambda setup: costs)
        first = metaloss.train([*words, f"output={tmp_path / 'first'}"])
    stored = compose([], tmp_path / "first" / "config.yaml")
    assert stored.schedule.options.budget is None
    assert (stored.meta_optimizer.options.rows, stored.schedule.options.judge_rows) == (0.25, 0.25)
    resumed = metaloss.resume_run(first.folder, steps=8)
    spelt = ["meta_optimizer.rows=0.25", "schedule.judge_rows=0.25", "steps=8"]
    whole = metaloss.train([*WORDS, *spelt, f"output={tmp_path / 'whole'}"])
    for name, value in whole.loss.named_parameters():
        assert torch.equal(dict(resumed.loss.named_parameters())[name], value)


def test_measuring_finds_a_choice_for_a_real_run(tmp_path):
    more = ["schedule.meta_batch=next", "schedule.unroll=2"]
    run = metaloss.train([*WORDS, *more, "schedule.budget=50", "steps=8", f"output={tmp_path}/a"])
    chosen = compose([], run.folder / "config.yaml")
    assert chosen.meta_optimizer.options.rows == 1.0
    assert run.summary.status == "ok"


def test_waiting_for_other_programs_costs_nothing():
    class Waiting:
        device = torch.device("cpu")

        def __call__(self, state, plan, progress):
            time.sleep(0.05)
            return state

    turns = budget._turns(Waiting(), None, Plan(phase="train"))
    assert max(next(turns) for _ in range(2)) < 0.02


@pytest.mark.parametrize("more", [[], ["schedule.meta_batch=next", "schedule.unroll=2"]])
def test_the_cosine_is_measured_beside_the_run(more, tmp_path):
    words = [*WORDS, *more, "steps=8"]
    share = ["meta_optimizer.rows=0.25", "schedule.judge_rows=0.25"]
    runs = {
        name: metaloss.train([*words, *options, f"output={tmp_path / name}"])
        for name, options in {
            "on": share,
            "off": [*share, "meta_optimizer.cosine=false"],
            # All 64 rows, in another order.
            "all": ["meta_optimizer.rows=0.995"],
        }.items()
    }
    rows = {name: read_rows(run.folder / "journal.jsonl") for name, run in runs.items()}
    found = {
        name: [row["meta/cosine_to_exact"] for row in own if "meta/cosine_to_exact" in row]
        for name, own in rows.items()
    }
    assert not found["off"]
    assert len(found["on"]) == len(found["all"]) >= 2
    assert found["all"] == pytest.approx([1.0] * len(found["all"]), abs=1e-4)
    assert all(-1 <= value < 0.999 for value in found["on"])
    for row in rows["on"]:
        row.pop("meta/cosine_to_exact", None)
    for on, off in zip(rows["on"], rows["off"], strict=True):
        assert {**on, "time/seconds": 0} == {**off, "time/seconds": 0}
