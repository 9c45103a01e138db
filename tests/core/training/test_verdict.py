"""What follows if the jury's metric has not improved: φ stays, or the run goes back."""

import shutil
from dataclasses import replace

import pytest
import torch

import metaloss
from metaloss.core.storage import checkpoint
from metaloss.errors import MetalossError

from ..same_ending import assert_same_ending
from ..small_setups import blobs, fast, net

EVERY = ("eval_every=4", "log_every=4", "checkpoint_every=4")
WORDS = (
    "schedule=online",
    "schedule.jury=0.5",
    "schedule.patience=2",
    "steps=24",
    "inner.lr=3",
    *EVERY,
)


def growing(outputs, targets):
    """The size of the outputs, which grows while a network learns."""
    return outputs.abs().mean()


def task():
    return replace(blobs(), metric=growing)


def trained(folder, *words, model=None):
    words = fast(*WORDS, *words, f"output={folder}")
    return metaloss.train(words, task=task(), model=model or net())


def states(folder, first=1):
    """Return the state of each checkpoint by training step."""
    found = {}
    for step in range(0, 25, 4):
        content, _ = checkpoint.load_newest(
            folder / "checkpoints", torch.device("cpu"), first + step
        )
        if content is not None and content["progress"][1] == step:
            found[step] = content
    return found


@pytest.fixture
def kept(monkeypatch):
    """Keep all checkpoints."""
    monkeypatch.setattr(checkpoint, "KEPT", 100)


def phi_of(content):
    return torch.cat([value.flatten() for value in content["state"]["values"]["phi"]])


def theta_of(content):
    leaves = content["state"]["values"]["inner"]
    return torch.cat([value.flatten() for value in leaves if value.is_floating_point()])


@pytest.mark.parametrize("action", ["choose", "freeze", "back", "start"])
@pytest.mark.parametrize("more", [("ema=0.9",), ("schedule.meta_batch=next",)], ids=str)
def test_what_follows(tmp_path, kept, action, more):
    usual = ("schedule.patience=5",) if action == "choose" else ()  # another has no effect there
    run = trained(tmp_path, f"schedule.verdict={action}", *usual, *more)
    done = run.summary.ended_with.get("verdict")
    every = states(tmp_path)
    assert sorted(every) == [0, 4, 8, 12, 16, 20, 24]
    phis = {step: phi_of(content) for step, content in every.items()}
    if action == "choose":
        assert done is None
        assert not torch.equal(phis[20], phis[24])
        return
    errors = {row["phase_step"]: row for row in run.journal() if "jury/error" in row}
    sizes = {s: min(v for n, v in row.items() if "jury/error" in n) for s, row in errors.items()}
    at, best = done["step"], done["best_step"]
    assert done["action"] == action
    assert sizes[best] == min(size for step, size in sizes.items() if step <= at)
    assert at >= best + 8  # a patience of two evaluations
    assert at == best + 8 or action != "freeze"
    for step in range(at, 25, 4):
        assert torch.equal(phis[step], phis[at])
    assert torch.equal(phis[at], phis[{"freeze": at, "back": best, "start": 0}[action]])
    assert torch.equal(theta_of(every[at]), theta_of(every[best])) == (action != "freeze")
    assert not torch.equal(theta_of(every[at + 4]), theta_of(every[at]))
    if action == "freeze":
        assert not torch.equal(phis[at], phis[at - 4])


def test_a_loss_that_stays_has_no_next_meta_gradient(tmp_path):
    run = trained(tmp_path, "schedule.verdict=freeze", "meta_optimizer.rows=0.5")
    at = run.summary.ended_with["verdict"]["step"]
    rows = [row for row in run.journal() if row["phase"] == "train" and "jury/error" in row]
    assert 4 <= at < 20
    assert not any("meta/cosine_to_exact" in row for row in rows if row["phase_step"] > at)
    assert any("meta/cosine_to_exact" in row for row in rows)


def test_a_run_goes_back_to_its_beginning(tmp_path, kept):
    model = net()
    torch.nn.init.zeros_(model[-1].weight)
    torch.nn.init.zeros_(model[-1].bias)
    run = trained(tmp_path, "schedule.verdict=back", model=model)
    assert run.summary.ended_with["verdict"] == {"action": "back", "step": 8, "best_step": 0}
    every = states(tmp_path)
    assert torch.equal(theta_of(every[8]), theta_of(every[0]))


@pytest.mark.parametrize("cut", [8, 16])
def test_a_resumed_run_has_the_same_verdict(tmp_path, kept, cut):
    words = ("schedule.verdict=back", "ema=0.9", "meta_optimizer.ema=0.6")
    whole = trained(tmp_path / "whole", *words)
    assert 0 < whole.summary.ended_with["verdict"]["step"] < 24
    shutil.copytree(tmp_path / "whole", tmp_path / "run")
    (tmp_path / "run/summary.json").unlink()
    for path in (tmp_path / "run/checkpoints").iterdir():
        if int("".join(filter(str.isdigit, path.stem))) > 1 + cut:
            path.unlink()
    run = metaloss.resume_run(tmp_path / "run", task=task(), model=net())
    assert run.summary.ended_with == whole.summary.ended_with
    assert_same_ending(tmp_path / "run", tmp_path / "whole")


def test_each_member_has_its_own_verdict(tmp_path):
    words = (*WORDS, "schedule.verdict=freeze", "schedule.patience=1", "ema=0.9")
    words = [*fast(*words), "task=digits", "task.subset=200", "model.hidden=[8]", "eval_every=2"]
    words += ["start.steps=10", "seed=1"]
    many = metaloss.train_seeds([*words, "seeds=2", f"output={tmp_path / 'many'}"])
    verdicts = []
    for run in many:
        alone = metaloss.train([*words, f"seed={run.summary.seed}", f"output={run.folder}-alone"])
        assert run.summary.ended_with == alone.summary.ended_with
        verdicts.append("verdict" in run.summary.ended_with)
        for one, other in zip(run.loss.parameters(), alone.loss.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    assert any(verdicts)


def test_a_verdict_needs_a_jury():
    with pytest.raises(MetalossError, match=r"schedule.verdict=back needs a jury: expected"):
        metaloss.train(fast("schedule=online", "schedule.verdict=back"))
