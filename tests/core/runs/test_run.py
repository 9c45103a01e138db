"""What a run writes."""

import json
import re
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import metaloss
from metaloss.core.runs.results import export_run
from metaloss.errors import MetalossError

from ..small_setups import blobs, fast, files_of, net, train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a run through all three phases."""
    folder = tmp_path_factory.mktemp("run") / "folder"
    words = ("schedule=online", "schedule.offline_steps=15", "steps=40", "checkpoint_every=25")
    return train(folder, *words, "start.steps=250", model=net(nn.BatchNorm1d(5)))


def test_the_folder_holds_what_is_promised(run):
    names = {str(path.relative_to(run.folder)) for path in run.folder.rglob("*") if path.is_file()}
    assert names == {
        "config.yaml",
        "plugins.json",
        "made_of.json",
        "pipeline.json",
        "journal.jsonl",
        "curves.jsonl",
        "model.safetensors",
        "ledger.safetensors",
        "loss.safetensors",
        "loss.json",
        "loss_schedule.safetensors",
        "summary.json",
        *(f"checkpoints/{step:012d}.checkpoint" for step in (250 + 15 + 25, 250 + 15 + 40)),
    }


def test_the_step_grows_through_all_phases(run):
    rows = run.journal()
    places = [(row["phase"], row["phase_step"], row["step"]) for row in rows]
    assert places == [
        ("start", 250, 250),
        ("offline", 10, 260),
        ("offline", 15, 265),
        *(("train", step, 265 + step) for step in (0, 10, 20, 30, 40)),
    ]


def test_every_number_has_its_name(run):
    rows = {(row["phase"], row["phase_step"]): row for row in run.journal()}
    place = {"step", "phase", "phase_step", "time/seconds"}
    seen = {"train/loss", "train/task_loss", "meta/task_loss", "meta/gradient_norm"}
    evaluated = {"valid/error", "valid/task_loss", "test/error", "test/task_loss"}
    assert {*rows["start", 250]} == place | {"start/misfit"}
    assert {*rows["offline", 10]} == place | seen
    assert {*rows["train", 0]} == place | evaluated
    assert {*rows["train", 10]} == place | seen
    assert {*rows["train", 40]} == place | seen | evaluated
    assert all(value is not None for row in rows.values() for value in row.values())
    page = (Path(__file__).parents[3] / "docs" / "commands.md").read_text("utf-8")
    explained = re.findall(r"^\| (`\w+/.+?) \|", page, re.MULTILINE)
    for name in {*seen, *evaluated, "start/misfit", "time/seconds"}:
        assert any(f"`{name}`" in names for names in explained), name


def test_the_summary_is_complete(run):
    assert json.loads((run.folder / "summary.json").read_text()) == run.summary.as_dict()
    summary = run.summary.as_dict()
    assert summary.pop("versions").keys() >= {"metaloss", "python", "torch", "torchopt", "numpy"}
    assert summary.pop("seconds") > 0
    assert 0 < summary.pop("train_seconds") < run.summary.seconds
    assert "commit" in summary
    summary.pop("commit")
    assert summary.pop("rows").keys() == {"train", "valid", "test"}
    last = run.journal()[-1]
    assert summary.pop("metrics") == {name: last[name] for name in ("valid/error", "test/error")}
    at_best = summary.pop("metrics_at_best_validation")
    evaluated = [row for row in run.journal() if "valid/error" in row]
    best = min(evaluated, key=lambda row: row["valid/error"])
    assert at_best == {
        "valid/error": best["valid/error"],
        "test/error": best["test/error"],
        "step": best["phase_step"],
    }
    assert summary == {
        "task": "custom",
        "model": "custom",
        "loss": "mlp",
        "schedule": "online",
        "start": "imitate",
        "meta_optimizer": "mixed",
        "seed": 0,
        "steps": 40,
        "status": "ok",
        "guard_events": [],
        "warnings": [],
        # The three classes are equally frequent, in the test rows too.
        "metrics_of_a_constant": {name: pytest.approx(2 / 3) for name in at_best if name != "step"},
        "learned_nothing": False,
        "compile": "off",
        "compile_seconds": 0.0,
        "goal": "min",
        "plugins": {},
        "device": "cpu",
    }


def test_the_curves_begin_each_phase_and_follow_the_evaluations(run):
    from metaloss.core.storage.run_folder import read_rows

    curves = read_rows(run.folder / "curves.jsonl")
    assert [(row["phase"], row["step"]) for row in curves] == [
        ("offline", 250),
        ("train", 265),
        ("train", 285),
        ("train", 305),
    ]
    assert all({*row["curves"]} == {"t=0", "t=1"} for row in curves)
    assert curves[0]["curves"] != curves[1]["curves"] != curves[2]["curves"]


def test_the_files_hold_the_trained_model_and_loss(run):
    found = load_file(run.folder / "model.safetensors")
    state = run.model.state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)
    assert int(found["1.num_batches_tracked"]) == 40
    model = run.model.eval()
    task = blobs()
    error = task.metric(model(task.test.inputs), task.test.targets)
    assert error.item() == pytest.approx(run.summary.metrics["test/error"])
    loss = metaloss.load_loss(run.folder)
    pair = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    assert torch.equal(loss(*pair), run.loss(*pair))
    provenance = json.loads((run.folder / "loss.json").read_text())["provenance"]
    assert (provenance["schedule"], provenance["steps"]) == ("online", 40)


def test_a_runs_loss_is_exported_whole_and_once(run, tmp_path):
    files = export_run(run.folder, tmp_path / "out")
    for path in files[:2]:
        assert path.read_bytes() == (run.folder / path.name).read_bytes()
    assert [path.name for path in files] == [
        "loss.safetensors",
        "loss.json",
        "criterion.py",
        "loss_schedule.safetensors",
    ]
    with pytest.raises(MetalossError, match="exists already: choose another folder"):
        export_run(run.folder, tmp_path / "out")
    with pytest.raises(MetalossError, match="cannot read"):
        export_run(tmp_path, tmp_path / "other")


def test_a_loss_that_is_a_formula_is_exported_as_one_too(tmp_path):
    words = ("schedule=online", "loss=symbolic", "loss.expression='-t*log(p)'")
    run = train(tmp_path / "run", *words, "steps=20")
    files = export_run(run.folder, tmp_path / "out")
    assert [path.name for path in files[2:]] == [
        "criterion.py",
        "formula.tex",
        "loss_schedule.safetensors",
    ]
    space: dict = {}
    exec(files[2].read_text(), space)
    pair = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    torch.testing.assert_close(space["criterion"](*pair), run.loss(*pair))
    assert r"\log" in files[3].read_text()


def test_one_seed_gives_one_run_and_another_another(tmp_path):
    task = {"label_noise": 0.2}

    def go(name, seed):
        words = ["schedule=online", "steps=20", f"seed={seed}", "task=digits", "model=mlp"]
        words += [f"task.{key}={value}" for key, value in task.items()]
        return metaloss.train([*fast(*words), f"output={tmp_path / name}"])

    first, again, other = go("a", 3), go("b", 3), go("c", 4)
    assert files_of(first) == files_of(again)
    assert all(one != two for one, two in zip(files_of(first), files_of(other), strict=True))


def test_a_mapping_is_as_good_as_words(tmp_path):
    words = train(tmp_path / "words", "schedule=online", "steps=10")
    mapping = {
        "tracker": [],
        "batch_size": 8,
        "meta_batch_size": 8,
        "start.steps": 1,
        "loss": {"hidden": [6]},
        "log_every": 10,
        "eval_every": 20,
        "output": tmp_path / "mapping",
        "schedule": "online",
        "steps": 10,
    }
    run = metaloss.train(mapping, task=blobs(), model=net())
    assert files_of(run) == files_of(words)


def test_words_for_a_part_that_is_an_object_are_refused(tmp_path):
    for word in ("task.label_noise=0.4", "task=digits"):
        with pytest.raises(MetalossError, match="task: both an object and words"):
            train(tmp_path / "run", word)
    assert not (tmp_path / "run").exists()


def test_the_summary_is_still_read_as_a_mapping_with_a_notice(run, monkeypatch):
    monkeypatch.setattr("metaloss.core.runs.summary._said", set())
    with pytest.warns(FutureWarning, match=r"run.summary\['status'\] is now run.summary.status; "):
        assert run.summary["status"] == run.summary.status == "ok"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run.summary["status"] == "ok", "said once"
    assert set(run.summary) == set(run.summary.as_dict())
