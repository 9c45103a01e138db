"""``metaloss train`` and the flags around it: what reaches the core, what is refused."""

import hashlib
import io
import json
import os
import subprocess
import sys

import pytest

from metaloss.cli.main import main
from metaloss.cli.options import report
from metaloss.compose import compose, to_yaml

from .. import forked

QUIET = "tracker=[]"


def test_train_hands_the_resolved_config_over(cli, core):
    status, out, err = cli("train", "steps=5", "inner.lr=0.5", QUIET)
    assert (status, out, err) == (0, "runs/it: ok, test/error=0.25\n", "")
    [(config, plugins)] = core.calls
    assert config == compose(["steps=5", "inner.lr=0.5", QUIET])
    assert plugins == {}


def test_a_diverged_run_ends_with_3(cli, core):
    core.status = "diverged"
    status, out, _ = cli("train", QUIET)
    assert (status, out) == (3, "runs/it: diverged, test/error=0.25\n")


def test_a_bad_request_is_one_line_and_2(cli, core):
    status, out, err = cli("train", "inner.lr=fast", QUIET)
    assert (status, out) == (2, "")
    assert err == "metaloss: error: inner.lr=fast: expected a number\n"
    assert core.calls == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("+preset=auto", "schedule=static"),
            "+preset=auto sets schedule.judge_rows=0.25, and schedule=static has no such option: "
            "choose schedule=online, or leave out +preset=auto",
        ),
        (
            ("+preset=auto", "meta_optimizer=higher"),
            "+preset=auto sets meta_optimizer.rows=0.25, and meta_optimizer=higher has no such "
            "option: choose another meta_optimizer, or leave out +preset=auto",
        ),
    ],
)
def test_a_preset_beside_another_part_says_what_it_sets_and_what_to_do(cli, words, message):
    status, out, err = cli("train", "--cfg", *words, QUIET)
    assert (status, out, err) == (2, "", f"metaloss: error: {message}\n")


def test_ctrl_c_ends_with_130_after_what_the_trainer_said(cli, core):
    def train_runs(config, *, plugins=None):
        raise KeyboardInterrupt("go on with --resume runs/it")

    core.train_runs = train_runs
    status, _, err = cli("train", QUIET)
    assert (status, err) == (130, "metaloss: interrupted: go on with --resume runs/it\n")


def test_a_bug_is_not_dressed_up_as_a_bad_request(cli, core):
    def train_runs(config, *, plugins=None):
        raise RuntimeError("bug")

    core.train_runs = train_runs
    with pytest.raises(RuntimeError, match="bug"):
        cli("train", QUIET)


def test_cfg_prints_what_a_run_would_use_and_runs_nothing(cli, core, tmp_path):
    status, out, _ = cli("train", "--cfg", "+preset=ml3", "guard=off", QUIET)
    assert status == 0
    assert core.calls == []
    path = tmp_path / "printed.yaml"
    path.write_text(out)
    assert compose(config_file=path) == compose(["+preset=ml3", "guard=off", QUIET])


@pytest.mark.parametrize(
    ("preset", "schedule", "rates"), [("adalfl", "online", (1e-5, 1e-3)), ("ml3", "offline", None)]
)
def test_presets_fit_the_real_parts(preset, schedule, rates):
    config = compose([f"+preset={preset}", QUIET])
    chosen = (config.loss.name, config.schedule.name, config.start.name)
    assert chosen == ("mlp", schedule, "random")
    options = config.schedule.options
    assert (options.offline_steps, options.unroll) == (2500, 1)
    engine = config.meta_optimizer.options
    assert rates is None or (engine.lr, engine.offline_lr) == rates
    assert engine.offline_lr == 1e-3


def test_config_begins_from_a_file(cli, core, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(compose(["loss=mlp", "loss.hidden=[7]", "steps=9", QUIET])))
    assert cli("train", "--config", path, "steps=10")[0] == 0
    config = core.calls[0][0]
    assert (config.steps, config.loss.options.hidden) == (10, [7])
    assert cli("train", "--config", path, "loss=mse")[0] == 0
    assert core.calls[1][0].loss.name == "mse"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["train", "--stpes=3"],
            "unknown flag '--stpes': (allowed: --cfg, --config, --help, --multirun, --plugin, "
            "--resume; keys are written KEY=VALUE, without dashes)",
        ),
        (
            ["train", "--resum", "x"],
            "unknown flag '--resum': did you mean '--resume'? (allowed: --cfg, --config, --help, "
            "--multirun, --plugin, --resume; keys are written KEY=VALUE, without dashes)",
        ),
        (["export", "--force"], "unknown flag '--force': (allowed: --help, --plugin)"),
        (["train", "--multirun", "--cfg"], "--multirun and --cfg cannot be combined"),
        (["train", "--resume", "x", "--config", "y"], "--config and --resume cannot be combined"),
        (["train", "--resume", "x", "--multirun"], "--resume and --multirun cannot be combined"),
        (["train", "--config"], "Option '--config' requires an argument."),
        (["check", "loss"], "Missing argument 'NAME'."),
        (["train", "--plugin", "no.py"], "cannot read the plugin no.py: No such file or directory"),
        (["train", "--plugin", "no.yaml"], "plugin no.yaml: expected a Python file, NAME.py"),
        (["compare", "out"], 'nothing to compare: give rows, such as --row "online: loss=mlp"'),
    ],
)
def test_wrong_flags_are_one_line_and_2(arguments, message, cli):
    status, out, err = cli(*arguments)
    assert (status, out, err) == (2, "", f"metaloss: error: {message}\n")


def test_an_unknown_command_is_one_line_and_2(cli):
    status, _, err = cli("trian")
    assert status == 2
    assert err.startswith("metaloss: error: No such command 'trian'.")
    assert err.count("\n") == 1


@pytest.fixture
def run_folder(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    config = compose(["inner.lr=0.5", "steps=100", QUIET])
    (folder / "config.yaml").write_text(to_yaml(config))
    return folder


def test_resume_goes_on_as_the_run_was(cli, core, run_folder):
    status, out, _ = cli("train", "--resume", run_folder)
    assert (status, out) == (0, f"{run_folder}: ok, test/error=0.25\n")
    assert core.calls == [(run_folder, {}, {})]


def test_resume_takes_steps_trackers_and_device(cli, core, run_folder):
    status, _, _ = cli("train", "--resume", run_folder, "steps=200", "device=cpu", "tracker=[]")
    assert status == 0
    assert core.calls == [(run_folder, {"steps": 200, "tracker": {}, "device": "cpu"}, {})]


def test_resume_refuses_any_other_key_by_name(cli, core, run_folder):
    status, _, err = cli("train", "--resume", run_folder, "steps=200", "inner.lr=3", "+preset=ml3")
    assert status == 2
    assert err == (
        "metaloss: error: --resume with inner.lr, preset: expected only steps, tracker and device\n"
    )
    assert core.calls == []


def test_resume_checks_the_words_it_takes(cli, core, run_folder):
    status, _, err = cli("train", "--resume", run_folder, "steps=0")
    assert (status, err) == (2, "metaloss: error: steps=0: expected a whole number, at least 1\n")


def test_resume_needs_a_runs_folder(cli, core, tmp_path):
    status, _, err = cli("train", "--resume", tmp_path / "no")
    assert status == 2
    assert err.endswith("expected the folder of a run; it has no config.yaml\n")


def test_a_plugin_is_found_and_its_hash_handed_over(cli, core, plugin):
    status, _, _ = cli("train", "--plugin", plugin, "model=tiny", "model.width=5", QUIET)
    assert status == 0
    [(config, hashes)] = core.calls
    assert (config.model.name, config.model.options.width) == ("tiny", 5)
    assert hashes == {str(plugin): hashlib.sha256(plugin.read_bytes()).hexdigest()}
    assert not list(plugin.parent.glob("__pycache__"))


def test_a_plugin_that_fails_is_one_line_and_2(cli, tmp_path):
    path = tmp_path / "bad.py"
    path.write_text("import no_such_module\n")
    status, _, err = cli("train", "--plugin", path)
    assert status == 2
    assert err == (
        f"metaloss: error: plugin {path} failed to load: ModuleNotFoundError: No module named "
        "'no_such_module'\n"
    )


def test_a_plugin_cannot_take_a_name_that_is_taken(cli, plugin):
    plugin.write_text(plugin.read_text().replace('"tiny"', '"mlp"'))
    status, _, err = cli("train", "--plugin", plugin)
    assert status == 2
    assert f"plugin {plugin}: model 'mlp' is registered already" in err


def test_the_module_runs_as_the_command_without_a_traceback(tmp_path):
    out, err = tmp_path / "out", tmp_path / "err"
    words = ["train", "task=digts"]
    assert forked.run(words, module="metaloss", folder=tmp_path, out=out, err=err) == 2
    assert out.read_text() == ""
    said = err.read_text()
    assert said.startswith("metaloss: error: unknown task 'digts': did you mean 'digits'?")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "words", [["--help"], ["export", "--help"], ["--version"], ["train", "--cfg"]]
)
def test_a_reader_that_ends_early_is_no_error(words, monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w", buffering=1) as closed:  # each line is written at once
        monkeypatch.setattr(sys, "stdout", closed)
        monkeypatch.setattr(sys, "stderr", sys.stderr)  # Click replaces both
        assert main(words) == 0


def test_a_run_that_diverged_has_its_status_in_a_closed_pipe_too(tmp_path, monkeypatch):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    assert report(tmp_path, {"status": "diverged"}) == 3


def test_help_needs_no_torch():
    code = (
        "import sys; from metaloss.cli.main import main; main(['--help']); "
        "import json; print(json.dumps([m for m in ('torch', 'hydra') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Train a network under a fixed or learned loss." in done.stdout
    assert json.loads(done.stdout.splitlines()[-1]) == []
