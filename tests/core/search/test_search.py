"""A run whose loss is searched for: what it writes, that it can be stopped, what it refuses."""

import csv
import json
from dataclasses import dataclass

import pytest

import metaloss
from metaloss import registry
from metaloss.contracts import Candidate, Search, Table, Tracker
from metaloss.errors import MetalossError
from metaloss.losses.export import load_loss
from metaloss.meta_optimizers.search import SearchRule

from ..interrupted_runs import interrupting, model, resume, train
from ..random_search import Draws
from ..same_ending import assert_same_ending
from ..small_setups import blobs

WORDS = (
    "loss=taylor",
    "schedule=offline",
    "meta_optimizer=draws",
    "meta_optimizer.population=4",
    "meta_optimizer.generations=3",
    "meta_optimizer.fitness_steps=6",
    "meta_optimizer.fitness=task_loss",
    "meta_optimizer.group=3",
)


@dataclass(frozen=True, kw_only=True)
class Hopeless(SearchRule):
    """Rejects all that it proposes."""

    def search(self, loss, task_loss, outputs, seed):
        return _Hopeless()


class _Hopeless(Search):
    def ask(self):
        return [Candidate(text="none", rejected="for the test")]

    def tell(self, fitness):
        assert fitness == [float("inf")]


@dataclass(frozen=True, kw_only=True)
class Spy(Tracker):
    """Remembers events."""

    def handle(self, event):
        EVENTS.append(event)


EVENTS = []


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    EVENTS.clear()
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    registry.register("meta_optimizer", "draws")(Draws)
    registry.register("meta_optimizer", "hopeless")(Hopeless)
    registry.register("tracker", "spy")(Spy)


def table(folder):
    with (folder / "search.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_best_candidate_trains_the_model(tmp_path):
    run = train(tmp_path / "run", *WORDS)
    rows = table(tmp_path / "run")
    assert len(rows) == 12
    assert [row["status"] for row in rows].count("rejected") == 1
    best = min(rows, key=lambda row: float(row["fitness"]))
    found = run.summary.search
    assert (str(found["generation"]), str(found["index"])) == (best["generation"], best["index"])
    assert float(best["fitness"]) == pytest.approx(found["fitness"])
    loss = load_loss(tmp_path / "run")
    assert loss.config.order == 2 + (int(best["loss"]) % 2)
    # From there on it is a run with this loss, and no other.
    again = train(
        tmp_path / "again",
        "loss=load",
        f"loss.path={tmp_path / 'run'}",
        "start=keep",
        "schedule=static",
    )
    assert again.summary.metrics == run.summary.metrics


def test_every_generation_is_in_the_journal_and_in_the_table_event(tmp_path):
    run = train(tmp_path, *WORDS, "tracker=[spy]")
    rows = [row for row in run.journal() if row["phase"] == "offline"]
    assert [row["step"] for row in rows] == [1, 2, 3]
    best = [row["search/fitness"] for row in rows]
    assert best == sorted(best, reverse=True)
    assert rows[-1]["search/fitness"] == run.summary.search["fitness"]
    tables = [event for event in EVENTS if isinstance(event, Table)]
    assert [len(event.rows) for event in tables] == [4, 8, 12]
    assert tables[-1].columns == ("generation", "index", "fitness", "status", "why", "loss")
    steps = [row["step"] for row in run.journal()]
    assert steps == sorted(steps)
    assert steps[-1] == 3 + 12


@pytest.mark.parametrize("at", [3, 9, 20, 40])
def test_a_search_that_was_stopped_ends_as_if_it_had_not(tmp_path, at):
    train(tmp_path / "whole", *WORDS)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", *WORDS, task=interrupting(at=at))
    assert not (tmp_path / "run" / "summary.json").exists()
    resume(tmp_path / "run")
    assert_same_ending(tmp_path / "run", tmp_path / "whole")
    whole, run = (tmp_path / name / "search.csv" for name in ("whole", "run"))
    assert run.read_bytes() == whole.read_bytes()


def test_a_search_that_finds_nothing_says_so_and_keeps_its_table(tmp_path):
    with pytest.raises(MetalossError, match="of 2 candidates none has a finite fitness"):
        train(
            tmp_path,
            "loss=taylor",
            "schedule=offline",
            "meta_optimizer=hopeless",
            "meta_optimizer.generations=2",
        )
    assert [row["why"] for row in table(tmp_path)] == ["for the test"] * 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["schedule=online"], "meta_optimizer=draws searches before training: it needs schedule="),
        (["schedule=static"], "it needs schedule=offline, not static"),
        (["meta_optimizer.local_engine=torchopt"], "expected an engine that takes many losses"),
        (["meta_optimizer.local_engine=draws"], "expected an engine that takes many losses"),
        (["meta_optimizer.local_engine=mixd"], "did you mean 'mixed'"),
        (["meta_optimizer.workers=0"], "workers=0: expected a number ≥ 1, or ray"),
        (["meta_optimizer.workers=2.5"], "workers=2.5: expected a number"),
        (["meta_optimizer.workers=2"], "a task, model or loss of your own cannot be sent"),
        (
            ["meta_optimizer.address=localhost"],
            "address=localhost with workers=1: expected workers=ray",
        ),
        (["meta_optimizer.generations=0"], "generations=0: expected a number ≥ 1"),
        (["meta_optimizer.early_end=1"], "early_end=1.0: expected a share"),
        (
            ["meta_optimizer.local_steps=0", "meta_optimizer.local_lr=0.1"],
            "local_lr=0.1 has no effect: it needs meta_optimizer.local_steps",
        ),
        (["schedule.unroll=3"], "unroll=3 has no effect: .* see meta_optimizer.generations"),
    ],
)
def test_what_a_search_cannot_do_is_refused_before_anything_is_written(tmp_path, words, message):
    folder = tmp_path / "run"
    with pytest.raises(MetalossError, match=message):
        train(folder, *WORDS, "meta_optimizer.local_steps=1", *words)
    assert not folder.exists()


def test_many_seeds_at_once_are_refused(tmp_path):
    words = [*WORDS, "seeds=2", f"output={tmp_path / 'group'}", "tracker=[]"]
    with pytest.raises(MetalossError, match="meta_optimizer=draws is a search: train"):
        metaloss.train_seeds(words, task=blobs(), model=model())
    assert not (tmp_path / "group").exists()


def test_a_summary_counts_what_became_of_the_candidates(tmp_path):
    train(tmp_path, *WORDS)
    found = json.loads((tmp_path / "summary.json").read_text())["search"]
    assert found["candidates"] == 12
    assert sum(found.get(name, 0) for name in ("trained", "rejected", "known", "ended_early")) == 12
