"""``+paper=NAME``: every row of the paper's table, ready to run, and what can be changed in it."""

import json

import pytest
import torch

from metaloss import registry
from metaloss.compose import ADDED, PAPER, compose
from metaloss.compose.paper import Known
from metaloss.errors import MetalossError
from metaloss.inner import SGD
from metaloss.models.mlp import MLPConfig
from metaloss.schedules.static import Static

QUIET = "tracker=[]"
COLOUR = SGD(lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
# (task, model, inner optimizer, steps), as the design's notes on the paper have them.
TABLE = {
    "communities_crime_mlp": ("communities_crime", "mlp", SGD(lr=0.001), 10_000),
    "diabetes_mlp": ("diabetes", "mlp", SGD(lr=0.001), 10_000),
    "california_housing_mlp": ("california_housing", "mlp", SGD(lr=0.001), 10_000),
    "mnist_logistic": ("mnist", "logistic", SGD(lr=0.01), 10_000),
    "mnist_mlp": ("mnist", "mlp", SGD(lr=0.01), 10_000),
    "mnist_lenet5": ("mnist", "lenet5", SGD(lr=0.01), 10_000),
    "cifar10_vgg16": ("cifar10", "vgg16", COLOUR, 150_000),
    "cifar10_allcnnc": ("cifar10", "allcnnc", COLOUR, 150_000),
    "cifar10_resnet18": ("cifar10", "resnet18", COLOUR, 150_000),
    "cifar10_squeezenet": ("cifar10", "squeezenet", COLOUR, 150_000),
    "cifar100_wrn_28_10": ("cifar100", "wrn", COLOUR, 150_000),
    "svhn_wrn_16_8": ("svhn", "wrn", COLOUR, 150_000),
}


def values_of(row):
    """Return a row's values by key, as a configuration has them."""
    values = {**row.choices, **row.settings}
    for group, options in row.options.items():
        values |= {f"{group}.{option}": value for option, value in options.items()}
    return values


def test_the_table_has_these_rows():
    assert set(PAPER) == set(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_a_row_is_adalfl_as_published_on_its_task_with_its_network(name):
    config, method = compose([f"+paper={name}", QUIET]), compose(["+preset=adalfl", QUIET])
    task, model, inner, steps = TABLE[name]
    assert (config.task.name, config.model.name, config.inner.name) == (task, model, "sgd")
    assert (config.inner.options, config.steps) == (inner, steps)
    for group in ("loss", "schedule", "start", "meta_optimizer"):
        assert getattr(config, group) == getattr(method, group)
    assert config.schedule.options.offline_steps == 2500


def test_the_networks_of_a_name_are_those():
    rows = {name: compose([f"+paper={name}", QUIET]).model.options for name in TABLE}
    deep, wide = rows["cifar100_wrn_28_10"], rows["svhn_wrn_16_8"]
    assert (deep.depth, deep.widen) == (28, 10)
    assert (wide.depth, wide.widen) == (16, 8)
    assert rows["mnist_mlp"] == rows["diabetes_mlp"] == MLPConfig(hidden=[1000, 1000])


@pytest.mark.parametrize("name", PAPER)
def test_every_value_of_a_row_says_how_it_is_known(name):
    row = PAPER[name]
    assert set(row.known) == set(values_of(row))
    assert set(row.known.values()) <= {how.value for how in Known}
    # Nothing is called read that the design's notes call remembered.
    assert row.known["inner.lr"] == Known.remembered.value
    assert row.known["steps"] == Known.code.value
    assert row.known["schedule.offline_steps"] == Known.read.value


def test_words_win_over_a_row():
    words = ["steps=7", "inner.lr=0.5", "+paper=diabetes_mlp", "schedule.offline_steps=3", QUIET]
    config = compose(words)
    assert (config.steps, config.inner.options.lr) == (7, 0.5)
    assert config.schedule.options.offline_steps == 3


def test_a_row_wins_over_a_file(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("steps: 3\nmodel: {name: linear, bias: false}\ninner: {name: sgd, lr: 7.0}\n")
    config = compose(["+paper=diabetes_mlp", QUIET], config_file=file)
    assert (config.steps, config.model.name, config.inner.options.lr) == (10_000, "mlp", 0.001)


def test_another_choice_drops_the_rows_options_of_that_part_alone():
    row = compose(["+paper=diabetes_mlp", QUIET])
    plain = compose(["+paper=diabetes_mlp", "schedule=static", "loss=mse", QUIET])
    assert (plain.schedule.options, plain.loss.name) == (Static(), "mse")
    assert (plain.model, plain.inner, plain.steps) == (row.model, row.inner, row.steps)
    other = compose(["+paper=diabetes_mlp", "inner=adam", "model=linear", QUIET])
    assert (other.inner.name, other.model.name) == ("adam", "linear")
    assert (other.schedule, other.loss) == (row.schedule, row.loss)
    # The engine is not part of a row: its rates stay.
    assert (
        compose(["+paper=diabetes_mlp", "meta_optimizer=higher"]).meta_optimizer.options.lr == 1e-5
    )


@pytest.mark.parametrize("turn", [1, -1])
def test_another_method_wins_over_the_rows_own_in_either_order(turn):
    config = compose(["+paper=diabetes_mlp", "+preset=ml3"][::turn])
    method = compose(["+preset=ml3"])
    assert (config.loss, config.schedule) == (method.loss, method.schedule)
    assert (config.task.name, config.inner.options.lr) == ("diabetes", 0.001)


def test_a_mapping_names_a_row():
    assert compose({"paper": "mnist_lenet5", "steps": 9}) == compose(
        ["+paper=mnist_lenet5", "steps=9"]
    )


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("+paper=cifar10_resnet", r"^unknown paper 'cifar10_resnet': did you mean 'cifar10_resn"),
        ("paper=mnist_mlp", r"^'paper=mnist_mlp': expected \+paper=mnist_mlp$"),
        ("+paper=[mnist_mlp]", r"^'\+paper=\[mnist_mlp\]': expected a name \(allowed: "),
    ],
)
def test_what_is_wrong_with_a_row_is_said(word, message):
    with pytest.raises(MetalossError, match=message):
        compose([word])


def test_a_sweep_over_rows_and_losses_keeps_and_drops_options_job_by_job(cli, fake_core, tmp_path):
    words = ["+paper=diabetes_mlp,mnist_lenet5", "loss=mlp,mse", "schedule=static,online"]
    status, _, err = cli(
        "train", "--multirun", "--plugin", fake_core, *words, QUIET, f"output={tmp_path / 'out'}"
    )
    assert (status, err) == (0, "")
    seen = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("*/seen.json")]
    assert sorted(job["model"] for job in seen) == ["lenet5"] * 4 + ["mlp"] * 4


def test_the_list_has_every_row_and_how_each_value_is_known(cli):
    status, out, _ = cli("list", "paper")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert status == 0
    assert "model.depth 28 remembered from the paper, not read again" in lines
    assert f"steps 150000 {Known.code.value}" in lines
    overview = [" ".join(line.split()) for line in cli("list")[1].splitlines()]
    for kind, added in ADDED.items():
        assert all(any(line.startswith(f"+{kind} {n} ") for line in overview) for n in added)


@pytest.mark.parametrize("name", TABLE)
def test_a_rows_network_takes_its_tasks_rows(name):
    shapes = {"mnist": (1, 28, 28), "diabetes": (10,), "california_housing": (8,)}
    config = compose([f"+paper={name}", QUIET])
    shape = shapes.get(config.task.name, (3, 32, 32) if config.steps == 150_000 else (122,))
    with torch.device("meta"):
        model = registry.get("model", config.model.name).build(
            config.model.options, input_shape=shape, outputs=10
        )
        assert model(torch.zeros(2, *shape)).shape == (2, 10)
