"""Modes, exit codes, and a process that is left as it was found."""

import logging
import os
import signal
from contextlib import suppress
from types import SimpleNamespace

import pytest

from metaloss.compose import compose
from metaloss.contracts import Logged, LossCurves, Noticed, RunFinished
from metaloss.errors import DivergedError, MetalossError
from metaloss.tracking import wandb as module
from metaloss.tracking.wandb import Mode, WandB, WandBConfig

from .conftest import started

KEY = "k" * 40


class FakeRun:
    """What the tracker calls of a run; no service is started."""

    def __init__(self, folder):
        self.dir, self.name = str(folder / "wandb" / "run-1" / "files"), "digits"
        self.summary, self.calls = {}, []

    def log(self, numbers, step):
        self.calls.append(("log", step, dict(numbers)))

    def define_metric(self, name, step_metric=None, summary=None, hidden=None):
        self.calls.append(("define", name, step_metric, summary))

    def write_logs(self, text):
        self.calls.append(("write", text))


@pytest.fixture
def opened(monkeypatch, no_key):
    """Record what runs are opened and closed with; ``fails`` names modes that cannot be."""
    seen = SimpleNamespace(options=[], exits=[], runs=[], fails=())

    def open_run(**options):
        seen.options.append(options)
        if options["mode"] in seen.fails:
            raise ConnectionError("no route to host\nat all")
        seen.runs.append(FakeRun(no_key))
        return seen.runs[-1]

    monkeypatch.setattr(module, "open_run", open_run)
    monkeypatch.setattr(module, "close_run", lambda run, code: seen.exits.append(code))
    return seen


def begin(folder, **options):
    tracker = WandB(WandBConfig(**options))
    tracker.handle(started(folder))
    return tracker


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "offline"),
        ({"WANDB_API_KEY": KEY}, "online"),
        ({"WANDB_API_KEY": KEY, "WANDB_MODE": "offline"}, "offline"),
        ({"WANDB_API_KEY": KEY, "WANDB_MODE": "dryrun"}, "offline"),
        ({"WANDB_MODE": "online"}, "offline"),
    ],
)
def test_auto_is_online_only_with_a_key(opened, monkeypatch, tmp_path, environ, expected):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    begin(tmp_path)
    assert [options["mode"] for options in opened.options] == [expected]


def test_auto_keeps_the_run_offline_if_the_server_cannot_be_reached(
    opened, monkeypatch, tmp_path, capsys
):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    opened.fails = ("online",)
    tracker = begin(tmp_path)
    assert [options["mode"] for options in opened.options] == ["online", "offline"]
    assert "cannot be reached, the run is kept offline: no route" in capsys.readouterr().err
    tracker.close()
    assert "upload it with: wandb sync" in capsys.readouterr().err


def test_online_is_not_replaced_by_anything_else(opened, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    opened.fails = ("online",)
    with pytest.raises(ConnectionError):
        begin(tmp_path, mode=Mode.online)
    assert len(opened.options) == 1


def test_online_without_a_key_is_refused_before_the_run(opened, tmp_path):
    with pytest.raises(MetalossError, match="mode=online without an API key") as error:
        WandB(WandBConfig(mode=Mode.online))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("environ", [{}, {"WANDB_MODE": "disabled"}])
def test_disabled_opens_nothing(opened, monkeypatch, tmp_path, environ):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    tracker = begin(tmp_path, mode=Mode.auto if environ else Mode.disabled)
    tracker.handle(Logged(step=1, phase="train", phase_step=1, numbers={"train/loss": 1.0}))
    tracker.close()
    assert opened.options == opened.exits == []


def test_options_are_handed_over(opened, tmp_path):
    place = tmp_path / "some" / "where"
    begin(tmp_path, project="p", entity="e", group="g", tags=["t"], dir=str(place))
    (options,) = opened.options
    named = {name: options[name] for name in ("project", "entity", "group", "tags", "dir")}
    assert named == {
        "project": "p",
        "entity": "e",
        "group": "g",
        "tags": ["t", "digits"],
        "dir": str(place),
    }
    assert place.is_dir()
    settings = options["settings"]
    assert (settings.console, settings.disable_git, settings.save_code) == ("off", True, False)


def test_the_config_of_the_run_is_not_changed(opened, tmp_path):
    event = started(tmp_path, resumed_from=3)
    before = dict(event.config)
    WandB(WandBConfig()).handle(event)
    assert event.config == before
    assert opened.options[0]["config"] == {**before, "resumed_from": 3}


def test_the_best_is_what_the_goal_says(opened, tmp_path):
    tracker = WandB(WandBConfig())
    tracker.handle(started(tmp_path, goal="max"))
    numbers = {"valid/accuracy": 0.5, "valid/task_loss": 2.0, "test/accuracy": 0.5}
    for step in (1, 2):
        tracker.handle(Logged(step=step, phase="train", phase_step=step, numbers=numbers))
    defined = [call[1:] for call in opened.runs[0].calls if call[0] == "define"]
    assert defined == [
        ("step/train", None, None),
        ("valid/accuracy", "step/train", "max"),
        ("valid/task_loss", "step/train", "min"),
        ("test/accuracy", "step/train", None),
    ]


def test_every_number_has_the_step_of_its_phase_as_its_axis(opened, tmp_path):
    tracker = WandB(WandBConfig())
    tracker.handle(started(tmp_path, totals={"start": 5, "offline": 10, "train": 30}))
    seen = [
        (5, "start", 5, "start/misfit"),
        (7, "offline", 2, "meta/task_loss"),
        (15, "train", 0, "valid/error"),
        (17, "train", 2, "meta/task_loss"),
    ]
    for step, phase, place, name in seen:
        tracker.handle(Logged(step=step, phase=phase, phase_step=place, numbers={name: 0.5}))
    defined = {call[1]: call[2] for call in opened.runs[0].calls if call[0] == "define"}
    assert {name: axis for name, axis in defined.items() if axis} == {
        "start/misfit": "step/start",
        "offline/meta/task_loss": "step/offline",
        "valid/error": "step/train",
        "meta/task_loss": "step/train",
    }
    logged = [call[1:] for call in opened.runs[0].calls if call[0] == "log"]
    assert logged == [
        (5, {"start/misfit": 0.5, "step/start": 5}),
        (7, {"offline/meta/task_loss": 0.5, "step/offline": 2}),
        (15, {"valid/error": 0.5, "step/train": 0}),
        (17, {"meta/task_loss": 0.5, "step/train": 2}),
    ]
    # The logs have the same in words.
    written = [call[1] for call in opened.runs[0].calls if call[0] == "write"]
    assert written[-1] == "train 2: meta/task_loss 0.5000"


def test_a_run_has_its_row_and_labels(opened, tmp_path):
    config = {"task": {"name": "digits"}, "loss": {"name": "mlp"}, "steps": 3}
    for options in ({}, {"job_type": "mine", "tags": ["x", "mlp"], "notes": "why"}):
        WandB(WandBConfig(**options)).handle(started(tmp_path, config=config))
    plain, given = opened.options
    assert (plain["name"], plain["job_type"], plain["notes"]) == ("digits-online", "mlp", None)
    assert plain["tags"] == ["digits", "mlp"]
    assert (given["name"], given["job_type"]) == ("mine digits-online", "mine")
    assert (given["tags"], given["notes"]) == (["x", "mlp", "digits"], "why")
    WandB(WandBConfig(run_name="n")).handle(started(tmp_path))
    assert opened.options[-1]["name"] == "n"


def test_a_sweep_of_wandb_s_sets_words_of_the_command_line():
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    chosen = {"inner.lr": 0.1, "model.hidden": "[40,40]", "loss": "mlp"}
    command = {"args": {name: {"value": value} for name, value in chosen.items()}}
    words = utils.create_sweep_command_args(command)["args_no_hyphens"]
    config = compose(words)
    assert (config.inner.options.lr, config.model.options.hidden) == (0.1, [40, 40])


@pytest.mark.parametrize(
    ("error", "code"),
    [(KeyboardInterrupt(), 255), (RuntimeError(), 1), (DivergedError("x"), 3), (None, 1)],
)
def test_a_run_that_breaks_off_says_how(opened, tmp_path, error, code):
    tracker = begin(tmp_path)
    with suppress(BaseException):
        try:
            if error is not None:
                raise error
        finally:
            tracker.close()
    assert opened.exits == [code]


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("diverged", 3)])
def test_a_run_that_ends_says_how_whatever_is_being_handled(opened, tmp_path, status, code):
    try:
        raise RuntimeError("of the caller, handled long since")
    except RuntimeError:
        tracker = begin(tmp_path)
        tracker.handle(RunFinished(summary={"status": status}))
        tracker.close()
        tracker.close()
    assert opened.exits == [code]


def test_curves_can_be_left_out(opened, tmp_path):
    tracker = begin(tmp_path, curves=module.Curves.off)
    tracker.handle(LossCurves(step=1, phase="train", grid=(0.0,), curves={"t=0": (1.0,)}))
    assert opened.runs[0].calls == []


def test_events_before_the_first_are_let_pass(opened):
    tracker = WandB(WandBConfig())
    tracker.handle(Noticed(step=1, message="early"))
    tracker.close()
    assert opened.exits == []


def test_the_process_of_these_tests_is_as_it_was():
    assert "WANDB_SERVICE" not in os.environ
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not any("wandb" in type(h).__module__ for h in logging.getLogger().handlers)
