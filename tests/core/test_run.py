"""What a run writes, returns and leaves alone."""

import copy
import json
import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

import metaloss
from metaloss.core.evaluate import outputs_of
from metaloss.core.run import export_run
from metaloss.errors import MetalossError
from metaloss.inner.functional import FunctionalModel
from metaloss.losses import MLPLoss
from metaloss.losses.mlp import MLPLossConfig
from metaloss.types import Batch

from .worlds import blobs, fast, line, net, setup


def train(folder, *words, task=None, model=None, **given):
    words = fast("log_every=10", "eval_every=20", f"output={folder}", *words)
    return metaloss.train(words, task=task or blobs(), model=model or net(), **given)


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
        "journal.jsonl",
        "curves.jsonl",
        "model.safetensors",
        "loss.safetensors",
        "loss.json",
        "summary.json",
        *(f"checkpoints/{step:012d}.pt" for step in (250 + 15 + 25, 250 + 15 + 40)),
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


def test_the_summary_is_complete(run):
    assert json.loads((run.folder / "summary.json").read_text()) == run.summary
    summary = dict(run.summary)
    assert summary.pop("versions").keys() >= {"metaloss", "python", "torch", "torchopt", "numpy"}
    assert summary.pop("seconds") > 0
    assert summary.pop("meta_overhead") > 0
    assert "commit" in summary
    summary.pop("commit")
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
        "goal": "min",
        "plugins": {},
        "device": "cpu",
    }


def test_the_curves_begin_each_phase_and_follow_the_evaluations(run):
    from metaloss.core.run import read_rows

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
    assert error.item() == pytest.approx(run.summary["metrics"]["test/error"])
    loss = metaloss.load_loss(run.folder)
    pair = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    assert torch.equal(loss(*pair), run.loss(*pair))
    provenance = json.loads((run.folder / "loss.json").read_text())["provenance"]
    assert (provenance["schedule"], provenance["steps"]) == ("online", 40)


def test_a_runs_loss_is_exported_whole_and_once(run, tmp_path):
    files = export_run(run.folder, tmp_path / "out")
    assert [path.read_bytes() for path in files] == [
        (run.folder / path.name).read_bytes() for path in files
    ]
    with pytest.raises(MetalossError, match="exists already: choose another folder"):
        export_run(run.folder, tmp_path / "out")
    with pytest.raises(MetalossError, match="cannot read"):
        export_run(tmp_path, tmp_path / "other")


def _bytes(run):
    return [(run.folder / name).read_bytes() for name in ("model.safetensors", "loss.safetensors")]


def test_one_seed_gives_one_run_and_another_another(tmp_path):
    task = {"label_noise": 0.2}

    def go(name, seed):
        words = ["schedule=online", "steps=20", f"seed={seed}", "task=digits", "model=mlp"]
        words += [f"task.{key}={value}" for key, value in task.items()]
        return metaloss.train([*fast(*words), f"output={tmp_path / name}"])

    first, again, other = go("a", 3), go("b", 3), go("c", 4)
    assert _bytes(first) == _bytes(again)
    assert all(one != two for one, two in zip(_bytes(first), _bytes(other), strict=True))


def test_a_mapping_is_as_good_as_words(tmp_path):
    words = train(tmp_path / "words", "schedule=online", "steps=10")
    mapping = {
        "tracker": [],
        "batch_size": 8,
        "meta_batch_size": 8,
        "start.steps": 20,
        "loss": {"hidden": [6]},
        "log_every": 10,
        "eval_every": 20,
        "output": tmp_path / "mapping",
        "schedule": "online",
        "steps": 10,
    }
    run = metaloss.train(mapping, task=blobs(), model=net())
    assert _bytes(run) == _bytes(words)


# --------------------------------------------------------------------- the user's own objects


def test_the_users_model_and_loss_stay_as_they_are(tmp_path):
    model, loss = net(nn.BatchNorm1d(5)), MLPLoss(MLPLossConfig(hidden=[6]))
    before = copy.deepcopy((model.state_dict(), loss.state_dict()))
    run = train(tmp_path, "schedule=online", "steps=10", "start=keep", model=model, loss=loss)
    for module, state in zip((model, loss), before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
        assert all(p.requires_grad and p.grad is None for p in module.parameters())
    assert run.model is not model
    assert run.loss is not loss
    assert not torch.equal(run.model[0].weight, model[0].weight)
    assert not torch.equal(run.loss.layers[0].weight, loss.layers[0].weight)
    assert json.loads((run.folder / "loss.json").read_text())["family"] == "mlp"


def test_training_begins_with_the_users_own_weights(tmp_path):
    model = net(seed=9)
    run = train(tmp_path, "schedule=static", "steps=1", "inner.lr=1e-30", model=model)
    assert torch.equal(run.model[0].weight, model[0].weight)
    task = blobs()
    error = task.metric(model(task.test.inputs), task.test.targets).item()
    assert run.journal()[-1]["test/error"] == pytest.approx(error)


def test_a_loss_that_is_not_registered_trains_but_is_not_exported(tmp_path):
    class Mine(metaloss.losses.LearnedLoss):
        def __init__(self):
            super().__init__()
            self.power = nn.Parameter(torch.ones(()))

        def pointwise(self, prediction, target):
            return (prediction - target).abs() ** (1 + self.power**2)

    run = train(tmp_path, "schedule=online", "start=keep", "steps=10", loss=Mine())
    assert run.loss.power != 1
    assert not (run.folder / "loss.json").exists()
    assert (run.folder / "summary.json").exists()


def test_frozen_parameters_stay_frozen(tmp_path):
    model = net()
    model[0].weight.requires_grad_(False)
    run = train(tmp_path, "schedule=online", "steps=10", model=model)
    assert torch.equal(run.model[0].weight, model[0].weight)
    assert not torch.equal(run.model[0].bias, model[0].bias)


def test_regression_runs(tmp_path):
    words = ("schedule=online", "steps=40", "start.steps=200")
    run = train(tmp_path, *words, task=line(), model=net(outputs=1))
    assert {*run.summary["metrics"]} == {"valid/mse", "test/mse"}
    first = run.journal()[0]
    assert run.summary["metrics"]["test/mse"] < first["test/mse"]


def test_bf16_keeps_the_loss_in_single_precision(tmp_path):
    run = train(tmp_path, "schedule=online", "steps=20", "precision=bf16")
    plain = train(tmp_path / "plain", "schedule=online", "steps=20")
    assert run.summary["status"] == "ok"
    for module in (run.model, run.loss):
        assert {value.dtype for value in module.parameters()} == {torch.float32}
    # bfloat16 has 8 bits: near, and not the same.
    ours, theirs = run.model[0].weight, plain.model[0].weight
    assert not torch.equal(ours, theirs)
    torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.02)


# ------------------------------------------------------------------------------ nothing global


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_global_is_touched(tmp_path, fails):
    def state():
        return (
            torch.get_rng_state().tolist(),
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            torch.is_autocast_enabled("cpu"),
            signal.getsignal(signal.SIGINT),
            signal.getsignal(signal.SIGTERM),
        )

    before = state()
    words = ("schedule=online", "steps=10", "deterministic=true", "guard=raise")
    task = blobs()
    if fails:
        task = replace(task, train=Batch(task.train.inputs / 0, task.train.targets))
        with pytest.raises(MetalossError):
            train(tmp_path, *words, task=task)
    else:
        train(tmp_path, *words)
    assert state() == before


def test_models_with_their_own_randomness_run_and_repeat(tmp_path):
    class Noise(nn.Module):
        def forward(self, x):
            return x + 0.1 * torch.randn_like(x)

    before = torch.get_rng_state()
    runs = [
        train(tmp_path / name, "schedule=online", "steps=10", model=net(Noise())) for name in "ab"
    ]
    assert _bytes(runs[0]) == _bytes(runs[1])
    # This noise is there in evaluation as well.
    assert runs[0].summary["metrics"] == runs[1].summary["metrics"]
    assert torch.equal(torch.get_rng_state(), before)


# ---------------------------------------------------------------------- schedules' options


def test_a_loss_without_parameters_needs_no_start(tmp_path):
    run = train(tmp_path, "schedule=static", "loss=cross_entropy", "steps=20")
    assert [row["step"] for row in run.journal()] == [0, 10, 20]
    assert run.summary["meta_overhead"] is None


def test_early_stopping_ends_at_the_best_validation_moment(tmp_path):
    # Trained on noise, the model only gets worse after a while.
    task = blobs()
    draw = torch.Generator().manual_seed(0)
    noisy = torch.randint(3, (64,), generator=draw)
    task = replace(task, train=Batch(task.train.inputs, noisy))
    words = ("schedule=static", "loss=cross_entropy", "inner.lr=1.0", "steps=2000", "eval_every=5")
    run = train(tmp_path, *words, "schedule.early_stopping=4", task=task)
    evaluated = [row for row in run.journal() if "valid/error" in row]
    errors = [row["valid/error"] for row in evaluated]
    best = errors.index(min(errors))
    assert len(errors) == best + 1 + 4
    assert run.summary["steps"] == evaluated[-1]["phase_step"] < 2000
    at_best = dict(run.summary["metrics_at_best_validation"])
    assert at_best.pop("step") == evaluated[best]["phase_step"]
    assert run.summary["metrics"] == at_best
    assert at_best["valid/error"] == min(errors) < errors[-1]
    functional = FunctionalModel(run.model)
    outputs = outputs_of(functional, _inner(functional), task.valid.inputs)
    assert task.metric(outputs, task.valid.targets).item() == pytest.approx(min(errors))


def _inner(functional):
    from metaloss.types import InnerState

    params, buffers = functional.state()
    return InnerState(params, buffers, None)


@pytest.mark.parametrize("rows", ["train", "validation", "train+validation"])
@pytest.mark.parametrize("schedule", ["static", "online"])
def test_training_sees_the_rows_it_is_told_to(rows, schedule):
    parts = setup(f"schedule={schedule}", f"schedule.train_on={rows}")
    task = parts.task
    allowed = {
        "train": [task.train],
        "validation": [task.valid],
        "train+validation": [task.train, task.valid],
    }[rows]
    wanted = {tuple(row) for batch in allowed for row in batch.inputs.tolist()}
    stream = parts.advance.streams["train"]
    seen = {tuple(row) for k in range(len(wanted) // 8) for row in stream[k].inputs.tolist()}
    assert seen <= wanted
    assert len(seen) == 8 * (len(wanted) // 8)
    hidden = {tuple(row) for row in task.test.inputs.tolist()}
    assert not seen & hidden


# --------------------------------------------------------------------------------- bad requests


class Stubborn(nn.Module):
    def __init__(self):
        super().__init__()
        self.own = nn.Parameter(torch.zeros(4, 3))

    def forward(self, x):
        return x @ self.own


class Blind(nn.Module):
    def forward(self, x):
        return x[:, :3]


def _loaded():
    loss = MLPLoss()
    loss.loaded = True
    return loss


@pytest.mark.parametrize(
    ("words", "given", "message"),
    [
        (("schedule=online", "loss=mse"), {}, "loss=mse has no parameters to learn: use schedule="),
        ((), {"loss": MLPLoss(link="identity")}, "the loss has link=identity, the task blobs need"),
        ((), {"loss": _loaded()}, "start=imitate would throw the loaded loss away"),
        (("start=random",), {"loss": _loaded()}, "start=random would throw the loaded loss away"),
        ((), {"model": net(outputs=4)}, r"returns outputs of shape \(2, 4\); the task blobs needs"),
        ((), {"model": nn.Linear(7, 3)}, r"cannot take inputs of shape \(B, 4\)"),
        ((), {"model": Blind()}, "the model has no parameters to train"),
        (("schedule=offline",), {"model": Stubborn()}, r"Stubborn\) owns parameters but has no re"),
        (("compile=on",), {}, "compile=on: this version runs eagerly"),
        (("device=cuda:99",), {}, r"device=cuda:99: this machine has \d+ CUDA devices"),
        (("schedule=load",), {}, "unknown schedule 'load'"),
        (("inner.lr=-1",), {}, "lr=-1"),
        (("loss=load",), {}, "loss=load needs loss.path=FOLDER"),
        (("loss=load", "loss.path=/nowhere"), {}, "cannot read /nowhere/loss.json"),
    ],
)
def test_a_bad_request_is_told_before_anything_is_written(tmp_path, words, given, message):
    given = {"task": blobs(), "model": net(), **given}
    folder = tmp_path / "run"
    with pytest.raises(MetalossError, match=message) as caught:
        metaloss.train([*fast(*words), f"output={folder}"], **given)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_not_empty_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine").write_text("precious")
    for folder in (tmp_path, tmp_path / "mine"):
        with pytest.raises(MetalossError, match=r"is not empty: choose another, or .*--resume"):
            train(folder, "steps=1")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert (tmp_path / "mine").read_text() == "precious"


def test_an_output_that_cannot_be_written_is_told():
    with pytest.raises(MetalossError, match="output=/proc/nothing cannot be written"):
        train("/proc/nothing", "steps=1")


def test_the_task_loss_of_the_user_is_the_judge(tmp_path):
    calls = []

    def judge(outputs, targets):
        calls.append(outputs.shape)
        return F.cross_entropy(outputs, targets)

    train(tmp_path, "schedule=online", "steps=3", task=replace(blobs(), task_loss=judge))
    assert torch.Size([8, 3]) in calls
