"""What runs make of bad steps, of the ladder, and of the guard's modes."""

from dataclasses import dataclass, replace

import pytest
import torch

import metaloss
from metaloss.contracts import Plan, Progress
from metaloss.core.training import recovery
from metaloss.core.training.interrupt import Interrupt
from metaloss.core.training.recorder import Recorder
from metaloss.core.training.trainer import Trainer
from metaloss.errors import DivergedError
from metaloss.losses.export import load_loss
from metaloss.starts import Imitate
from metaloss.types import Batch

from ..plain_autograd_loop import first_state
from ..small_setups import blobs, fast, net, setup

NAN, INF = float("nan"), float("inf")


def poisoned():
    """Return a task with one row that is not finite: one bad step an epoch of 8 steps."""
    task = blobs()
    inputs = task.train.inputs.clone()
    inputs[17] = INF
    return replace(task, train=Batch(inputs, task.train.targets))


@pytest.mark.parametrize("words", [("schedule=static",), ("schedule=online",)])
def test_a_bad_step_leaves_everything_as_it_was(words):
    parts = setup(*words, "meta_optimizer.rule=adam", task=poisoned())
    state = first_state(parts)
    bad = []
    for step in range(16):
        plan = parts.schedule.plan(Progress(train=step), 16)
        after = parts.advance(state, plan, Progress(train=step))
        if parts.advance.streams["train"][step].inputs.isinf().any():
            bad.append(step)
            for name in ("inner", "phi", "rule", "meter", "ledger"):
                old, new = getattr(state, name), getattr(after, name)
                for a, b in zip(_leaves(old), _leaves(new), strict=True):
                    assert torch.equal(a, b)
            assert int(after.guard.seen) == int(state.guard.seen)
        else:
            assert not torch.equal(after.inner.params["0.weight"], state.inner.params["0.weight"])
        state = after
    assert len(bad) == 2
    assert int(state.guard.bad) == 2


def test_steps_that_were_not_taken_do_not_move_the_loss_at_their_meta_step():
    parts = setup("schedule=online", "schedule.meta_batch=next", task=poisoned())
    state = first_state(parts)
    moved = []
    for step in range(8):
        plan = parts.schedule.plan(Progress(train=step), 8)
        after = parts.advance(state, plan, Progress(train=step))
        moved.append(not torch.equal(after.phi["layers.0.weight"], state.phi["layers.0.weight"]))
        state = after
    bad = [parts.advance.streams["train"][k].inputs.isinf().any().item() for k in range(8)]
    # The bad batch is no meta-batch, and its own step has no meta-step.
    assert moved == [step > 0 and not bad[step] and not bad[step - 1] for step in range(8)]
    assert sum(bad) == 1
    assert any(moved)


def _leaves(tree):
    return [x for x in torch.utils._pytree.tree_leaves(tree) if isinstance(x, torch.Tensor)]


def train(folder, *words, task=None, **given):
    words = fast("log_every=8", "eval_every=16", f"output={folder}", *words)
    return metaloss.train(words, task=task or blobs(), model=net(), **given)


def test_a_learning_run_climbs_the_ladder_and_says_so(tmp_path):
    run = train(tmp_path, "schedule=online", "steps=64", task=poisoned())
    assert run.summary.status == "diverged"
    assert [(e["action"], e["step"]) for e in run.summary.guard_events] == [
        ("restore", 1 + 8),
        ("imitate", 1 + 16),
        ("give up", 1 + 24),
    ]
    assert all(e["reason"] == "1 bad steps since the last line" for e in run.summary.guard_events)
    assert run.summary.steps == 24
    assert all(value.isfinite().all() for value in run.model.state_dict().values())
    assert {*run.summary.metrics} == {"valid/error", "test/error"}


def test_a_static_run_is_given_up_at_its_first_bad_step(tmp_path):
    run = train(tmp_path, "schedule=static", "loss=cross_entropy", "steps=64", task=poisoned())
    (event,) = run.summary.guard_events
    assert (event["action"], run.summary.status, run.summary.steps) == (
        "give up",
        "diverged",
        8,
    )


def test_a_run_that_diverges_offline_has_metrics(tmp_path):
    words = ("schedule=offline", "schedule.offline_steps=60", "schedule.unroll=2", "steps=8")
    run = train(tmp_path, *words, task=poisoned())
    assert run.summary.status == "diverged"
    assert run.summary.steps == 0
    assert {*run.summary.metrics} == {"valid/error", "test/error"}


@dataclass(frozen=True, kw_only=True)
class Brief(Imitate):
    """Imitates for a moment, where nobody says how long."""

    steps: int = 20


def test_a_loaded_loss_that_goes_wrong_may_be_imitated_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(recovery, "Imitate", Brief)
    first = train(tmp_path / "first", "schedule=online", "steps=8")
    words = ("loss=load", f"loss.path={first.folder}", "start=keep", "schedule=online", "steps=64")
    run = train(tmp_path / "second", *words, task=poisoned())
    assert [e["action"] for e in run.summary.guard_events] == ["restore", "imitate", "give up"]
    assert load_loss(run.folder).family == "mlp"


def test_the_guard_can_raise(tmp_path):
    words = ("schedule=online", "steps=64", "guard=raise")
    with pytest.raises(DivergedError, match=r"step 9: 1 bad steps .*\(guard=raise\)") as caught:
        train(tmp_path, *words, task=poisoned())
    assert caught.value.exit_status == 3
    assert not (tmp_path / "summary.json").exists()


def test_the_guard_can_be_off(tmp_path):
    run = train(tmp_path, "schedule=online", "steps=16", "guard=off", task=poisoned())
    assert run.summary.guard_events == []
    assert any(value.isnan().any() for value in run.model.state_dict().values())


def test_a_model_that_learns_nothing_is_found_out(tmp_path):
    model = net()
    torch.nn.init.zeros_(model[-1].weight)
    with torch.no_grad():
        model[-1].bias.copy_(torch.bincount(blobs().train.targets))
    words = fast("schedule=online", "inner.lr=1e-12", "steps=40", "log_every=10", "eval_every=10")
    run = metaloss.train([*words, f"output={tmp_path}"], task=blobs(), model=model)
    events = run.summary.guard_events
    assert [(e["action"], e["step"]) for e in events] == [
        ("restore", 1 + 10),
        ("imitate", 1 + 20),
        ("give up", 1 + 30),
    ]
    assert events[0]["reason"] == "no better than a constant prediction after 10 steps"
    assert run.summary.status == "diverged"


@pytest.mark.parametrize(
    "words",
    [
        ("schedule=static",),
        ("schedule=online", "schedule.meta_batch=next"),
        ("schedule=online", "schedule.unroll=2", "schedule.offline_steps=5"),
    ],
)
def test_a_run_without_events_is_the_same_without_a_guard(tmp_path, words):
    runs = [train(tmp_path / mode, *words, "steps=32", f"guard={mode}") for mode in ("on", "off")]
    assert runs[0].summary.guard_events == []
    for name in ("model.safetensors", "loss.safetensors"):
        on, off = ((run.folder / name).read_bytes() for run in runs)
        assert on == off
    rows = [
        [{k: v for k, v in row.items() if not k.startswith("time/")} for row in run.journal()]
        for run in runs
    ]
    assert rows[0] == rows[1]
    assert len(rows[0]) > 4


def test_each_rung_does_what_it_says(tmp_path):
    parts = setup("schedule=online", "steps=64")
    told = []
    recorder = Recorder(tmp_path, told.append)
    trainer = Trainer(parts, tmp_path, recorder, Interrupt())
    trainer.begin()
    trainer.progress = Progress(train=16)
    started, plan = trainer.state, Plan(phase="train", meta_step=True)
    good = parts.advance(started, plan, Progress(train=0))
    trainer.ladder.all_well(good)

    trainer.state = trainer.recovery.climb(
        trainer.state, plan, trainer.progress, "a reason", trainer.ladder.good
    )
    state = trainer.state
    assert state.inner is good.inner
    assert state.phi is good.phi
    assert float(state.rule.shrink) == pytest.approx(0.1)
    assert int(state.guard.seen) == 0
    assert state.pending is None

    slow = parts.advance(state, plan, Progress(train=1)).phi["layers.0.weight"]
    whole = state._replace(rule=state.rule._replace(shrink=torch.ones(())))
    quick = parts.advance(whole, plan, Progress(train=1)).phi["layers.0.weight"]
    before = good.phi["layers.0.weight"]
    torch.testing.assert_close(slow - before, (quick - before) / 10, rtol=1e-2, atol=1e-7)

    trainer.state = trainer.recovery.climb(
        trainer.state, plan, trainer.progress, "a reason", trainer.ladder.start
    )
    expected = Imitate(steps=1).fit(parts.loss, parts.task.task_loss, 3, seed=0)
    assert all(torch.equal(trainer.state.phi[name], value) for name, value in expected.items())
    assert trainer.state.inner is started.inner
    assert int(trainer.state.rule.taken) == 0
    assert float(trainer.state.rule.shrink) == pytest.approx(0.1), "η stays cut"

    trainer.state = trainer.recovery.climb(
        trainer.state, plan, trainer.progress, "a reason", trainer.ladder.start
    )
    assert trainer.ladder.diverged
    recorder.close()
    notices = [event.message for event in told if hasattr(event, "message")]
    assert [message.startswith("guard: a reason: ") for message in notices] == [True] * 3
    assert ["schedule=static" in message for message in notices] == [False, False, True]


def test_one_member_may_be_restored_while_the_others_wait_for_their_meta_batch(tmp_path):
    words = ["schedule=online", "schedule.meta_batch=next", "log_every=3", "steps=12"]
    group = train(tmp_path / "group", *words, "seeds=2", task=poisoned())
    alone = [train(tmp_path / f"{k}", *words, f"seed={k}", task=poisoned()) for k in (0, 1)]
    events = [run.summary.guard_events for run in group]
    assert events == [run.summary.guard_events for run in alone]
    assert events[0][0]["step"] != events[1][0]["step"]
    for one, other in zip(group, alone, strict=True):
        torch.testing.assert_close(one.model.state_dict(), other.model.state_dict())
        torch.testing.assert_close(one.loss.state_dict(), other.loss.state_dict())


def test_at_the_end_of_training_nothing_is_restored(tmp_path):
    # The only bad step of the run is in its last line.
    task = poisoned()
    parts = setup("schedule=online", task=task)
    place = next(k for k in range(8) if parts.advance.streams["train"][k].inputs.isinf().any())
    run = train(tmp_path, "schedule=online", f"steps={place + 1}", task=task)
    (event,) = run.summary.guard_events
    assert (event["action"], run.summary.status) == ("give up", "diverged")
