"""``--config``: the command line wins, a switched group drops the file's options, data only."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaloss.compose import compose, read_file, to_dict, to_yaml
from metaloss.config import RunConfig, Selected
from metaloss.errors import MetalossError

from .config_parts import MLP, SGD, Activation, Adam, Console, WandB

BASE = RunConfig(
    **dict.fromkeys(
        ("task", "model", "loss", "schedule", "start", "meta_optimizer", "inner"),
        Selected(name="any", options=Console()),
    )
)
FILE = """
loss: {name: mlp, hidden: [7], activation: relu}
inner: {name: adam, lr: 1e-4}
tracker:
  console: {every: 9}
  wandb: {project: p}
steps: 11
guard: off
"""


def test_the_files_values_are_the_defaults(config_file):
    config = compose(config_file=config_file(FILE))
    assert config.loss.options == MLP(hidden=[7], activation=Activation.relu)
    assert config.inner.options == Adam(lr=1e-4)
    assert config.tracker == {"console": Console(every=9), "wandb": WandB(project="p")}
    assert (config.steps, config.guard.name, config.seed) == (11, "off", 0)


def test_the_command_line_wins(config_file):
    config = compose(["steps=12", "inner.lr=0.5", "loss.hidden=[8,8]"], config_file(FILE))
    assert (config.steps, config.inner.options.lr) == (12, 0.5)
    assert config.loss.options == MLP(hidden=[8, 8], activation=Activation.relu)


def test_switching_a_group_drops_the_files_options_for_it_alone(config_file):
    config = compose(["inner=sgd"], config_file(FILE))
    assert config.inner.options == SGD()
    assert config.loss.options.hidden == [7]


def test_naming_the_files_own_choice_keeps_its_options(config_file):
    assert compose(["inner=adam"], config_file(FILE)).inner.options == Adam(lr=1e-4)


def test_switching_trackers_keeps_the_options_of_those_that_stay(config_file):
    assert compose(["tracker=[wandb]"], config_file(FILE)).tracker == {"wandb": WandB(project="p")}
    assert compose(["tracker=[]"], config_file(FILE)).tracker == {}


def test_a_preset_wins_over_the_file(config_file):
    config = compose(["+preset=ml3"], config_file(FILE))
    assert config.loss.options.hidden == [50, 50]
    assert config.schedule.name == "offline"
    assert config.steps == 11


def test_a_file_leaves_nothing_behind(config_file):
    compose(config_file=config_file(FILE))
    assert compose([]) == compose([], config_file(""))
    assert compose([]).loss.options == MLP()


def test_short_forms(config_file):
    config = compose(config_file=config_file("loss: mse\ntracker: [wandb]\ninner: {lr: 0.5}\n"))
    assert (config.loss.name, list(config.tracker)) == ("mse", ["wandb"])
    assert config.inner.options == SGD(lr=0.5)


def test_a_runs_own_folder_is_not_taken_over_but_another_is(config_file, tmp_path):
    config = dataclasses.replace(compose([]), output=str(tmp_path))
    assert compose(config_file=config_file(to_yaml(config))).output is None
    config = dataclasses.replace(config, output=str(tmp_path / "other"))
    assert compose(config_file=config_file(to_yaml(config))) == config


def test_the_file_is_the_plain_form(config_file):
    config = compose(["loss.bounds.low=-1", "tracker=[]"])
    assert read_file(config_file(to_yaml(config))) == to_dict(config)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: many", "{file}: steps=many: expected a whole number"),
        ("inner: {lr: fast}", "{file}: inner.lr=fast: expected a number"),
        (
            "inner: {lrr: 3}",
            "{file}: unknown option 'inner.lrr' of inner=sgd: did you mean 'inner.lr'? "
            "(allowed: inner.lr, inner.momentum)",
        ),
        (
            "loss: {name: mse, hidden: [3]}",
            "{file}: unknown option 'loss.hidden' of loss=mse: (allowed: none)",
        ),
        (
            "loss: mlpp",
            "{file}: unknown loss 'mlpp': did you mean 'mlp'? (allowed: broken, mlp, mse, powered)",
        ),
        ("loss: 3", "{file}: loss=3: expected options by name"),
        ("loss: {name: [mse]}", "{file}: loss.name=['mse']: expected a name"),
        ("tracker: 3", "{file}: tracker=3: expected names of trackers with their options"),
        ("tracker: {console: 3}", "{file}: tracker.console=3: expected options by name"),
        (
            "tracker: {console: {evry: 3}}",
            "{file}: unknown option 'tracker.console.evry': did you mean 'tracker.console.every'? "
            "(allowed: tracker.console.every)",
        ),
        (
            "output: ${oc.env:HOME}",
            "{file}: output='${oc.env:HOME}': interpolations are not allowed",
        ),
        (
            "loss: {hidden: ['${seed}']}",
            "{file}: loss.hidden='${seed}': interpolations are not allowed",
        ),
        ("device: ???", "{file}: device='???': expected a value"),
        ("- 1", "config {file} is a list: expected KEY: VALUE"),
        (
            "seed: &a 1\nsteps: *a",
            "config {file} is not plain YAML: line 2: aliases (*name) are not allowed",
        ),
        (
            "seed: 1\nseed: 2",
            "config {file} is not plain YAML: line 2: the key 'seed' occurs twice",
        ),
        ("1: 2", "config {file} is not plain YAML: line 1: expected plain text as a key"),
        ("x" * 1_000_001, "config {file}: expected at most 1000000 bytes"),
    ],
)
def test_message(text, message, config_file):
    path = config_file(text)
    with pytest.raises(MetalossError) as caught:
        compose(config_file=path)
    assert str(caught.value) == message.replace("{file}", str(path))


def test_an_unknown_key_is_named(config_file):
    path = config_file("hydra: {run: x}")
    with pytest.raises(MetalossError) as caught:
        compose(config_file=path)
    assert str(caught.value).startswith(f"unknown key in {path} 'hydra': (allowed: batch_size, ")


@pytest.mark.parametrize(
    "text",
    ["seed: !!python/name:os.system", "[" * 1000, "seed: [1", "seed: 1" + "0" * 5000, "\x00"],
)
def test_what_is_no_plain_yaml_is_refused(text, config_file):
    with pytest.raises(MetalossError, match="is not plain YAML: ") as caught:
        compose(config_file=config_file(text))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    path = tmp_path / "no.yaml"
    with pytest.raises(MetalossError) as caught:
        compose(config_file=path)
    assert str(caught.value) == f"cannot read the config {path}: No such file or directory"


def test_a_file_with_a_part_that_fails_to_load_matters_only_if_it_stays(config_file):
    path = config_file("loss: {name: broken, x: 3}")
    assert compose(["loss=mse"], path).loss.name == "mse"
    with pytest.raises(MetalossError, match=r"loss .broken. .*failed to load"):
        compose([], path)


@given(st.text(st.characters(exclude_categories=["Cs"])) | st.floats(allow_nan=False))
def test_texts_and_numbers_come_back_from_yaml_as_they_were(tmp_path_factory, value):
    if isinstance(value, str) and ("${" in value or value == "???"):
        return
    path = tmp_path_factory.getbasetemp() / "value.yaml"
    config = dataclasses.replace(BASE, tracker={"wandb": WandB(project=value)})
    path.write_text(to_yaml(config), encoding="utf-8", newline="")
    got = read_file(path)["tracker"]["wandb"]["project"]
    assert (got, type(got)) == (value, type(value))
