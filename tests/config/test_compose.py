"""What is composed: defaults, overrides, groups, presets, and values that come back the same."""

import dataclasses
import math

import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from metaloss import registry
from metaloss.compose import compose, to_dict, to_overrides, to_yaml
from metaloss.compose.words import parse
from metaloss.config import Compile, GuardMode, Precision, RunConfig
from metaloss.errors import MetalossError

from .config_parts import MLP, MSE, SGD, Activation, Console, Offline, Online, WandB

# Text that a configuration holds: no interpolation, no mark of a missing value, no half characters.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(
    lambda text: "${" not in text and text != "???"
)
words = st.sampled_from(["on", "off", "null", "~", "1e5", "0x1f", "1_0", "2024-01-01", "1:30", ""])
numbers = st.floats(allow_nan=False, allow_infinity=False)
slow = settings(
    max_examples=15,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking would compose for minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def test_defaults_resolve_every_group_and_key():
    config = compose()
    chosen = {g: getattr(config, g).name for g in registry.GROUPS if g != "tracker"}
    assert chosen == {
        "task": "digits",
        "model": "mlp",
        "loss": "mlp",
        "schedule": "online",
        "start": "imitate",
        "meta_optimizer": "mixed",
        "inner": "sgd",
    }
    assert config.tracker == {"console": Console()}
    assert (config.steps, config.seed, config.output) == (2000, 0, None)
    assert config.loss.options == MLP()


def test_options_are_the_frozen_instances_of_the_parts_own_classes():
    options = compose(["inner.lr=0.5"]).inner.options
    assert type(options) is SGD
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.lr = 1.0


def test_overrides_reach_settings_options_and_nested_options():
    config = compose(
        ["steps=5", "loss.hidden=[64,64]", "loss.activation=relu", "loss.bounds.high=2", "seed=1"]
    )
    assert config.loss.options.hidden == [64, 64]
    assert config.loss.options.activation is Activation.relu
    assert config.loss.options.bounds.high == 2.0
    assert (config.steps, config.seed) == (5, 1)


def test_a_groups_options_may_be_given_as_one_word():
    options = compose(["loss={hidden:[3],bias:false}"]).loss.options
    assert (options.hidden, options.bias) == ([3], False)


def test_the_last_word_wins():
    assert compose(["seed=1", "loss=mlp", "loss=mse", "seed=2"]).seed == 2
    assert compose(["loss=mlp", "loss=mse"]).loss.options == MSE()


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("tracker=[]", {}),
        ("tracker=wandb", {"wandb": WandB()}),
        ("tracker=[console,wandb]", {"console": Console(), "wandb": WandB()}),
    ],
)
def test_trackers_are_chosen_as_a_list(word, expected):
    assert compose([word]).tracker == expected


def test_each_trackers_options_live_under_its_name():
    config = compose(
        ["tracker=[console,wandb]", "tracker.wandb.project=p", "tracker.console.every=7"]
    )
    assert config.tracker == {"console": Console(every=7), "wandb": WandB(project="p")}


@pytest.mark.parametrize("word", ["on", "off", "raise"])
def test_guard_modes_are_spelt_like_the_keywords(word, config_file):
    config = compose([f"guard={word}"])
    assert config.guard is GuardMode[word]
    assert to_dict(config)["guard"] == word
    assert compose(config_file=config_file(f"guard: {word}\n")).guard is GuardMode[word]
    assert compose(config_file=config_file(to_yaml(config))).guard is GuardMode[word]


@pytest.mark.parametrize("word", ["auto", "on", "off"])
def test_compile_takes_on_and_off_as_words(word, config_file):
    config = compose([f"compile={word}", "precision=bf16"])
    assert (config.compile, config.precision) == (Compile[word], Precision.bf16)
    assert compose(config_file=config_file(f"compile: {word}\n")).compile is Compile[word]


def test_a_mapping_is_the_same_as_its_words():
    given_mapping = {
        "schedule": "offline",
        "inner": {"lr": 0.25, "momentum": np.float32(0.5)},
        "loss.activation": Activation.relu,
        "loss.hidden": (3, np.int64(4)),
        "loss.bias": False,
        "tracker": [],
        "task.subset": None,
        "guard": GuardMode["raise"],
        "preset": "ml3",
    }
    config = compose(given_mapping)
    assert config == compose(
        [
            "schedule=offline",
            "inner.lr=0.25",
            "inner.momentum=0.5",
            "loss.activation=relu",
            "loss.hidden=[3,4]",
            "loss.bias=false",
            "tracker=[]",
            "task.subset=null",
            "guard=raise",
            "+preset=ml3",
        ]
    )
    assert config.loss.options.hidden == [3, 4]


@given(st.one_of(texts, words, numbers, st.integers(), st.booleans(), st.none(), st.lists(texts)))
def test_values_pass_through_hydras_grammar_unchanged(value):
    [override] = parse(to_overrides({"some.key": value}))
    got = override.value()
    assert (got, type(got)) == (value, type(value))


@slow
@given(
    project=texts | words, tags=st.lists(texts | words, max_size=3), lr=numbers, seed=st.integers(0)
)
def test_a_resolved_config_comes_back_equal_from_its_file(tmp_path, project, tags, lr, seed):
    config = compose(
        {
            "tracker": ["wandb"],
            "tracker.wandb.project": project,
            "tracker.wandb.tags": tags,
            "meta_optimizer.lr": lr,
            "seed": seed,
            "loss.hidden": [seed % 7 + 1],
        }
    )
    assert config.tracker["wandb"] == WandB(project=project, tags=tags)
    assert config.meta_optimizer.options.lr == lr
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config), encoding="utf-8", newline="")
    assert compose(config_file=path) == config


def test_infinities_survive_the_file(config_file):
    config = compose({"meta_optimizer.lr": math.inf})
    assert compose(config_file=config_file(to_yaml(config))).meta_optimizer.options.lr == math.inf


def test_adalfl_preset():
    config = compose(["+preset=adalfl"])
    assert config.schedule.options == Online(unroll=1, offline_steps=2500, offline_unroll=1)
    assert config.start.name == "random"
    assert config.loss.options == MLP(
        hidden=[40, 40], activation=Activation.smooth_leaky_relu, class_offsets=0
    )
    assert (config.meta_optimizer.options.lr, config.meta_optimizer.options.offline_lr) == (
        1e-5,
        1e-3,
    )


def test_ml3_preset_below_the_rest_of_the_line():
    config = compose(["loss.hidden=[3]", "+preset=ml3"])
    assert config.schedule.options == Offline(unroll=1, offline_steps=2500)
    assert config.start.name == "random"
    loss = config.loss.options
    assert (loss.hidden, loss.activation, loss.bias) == ([3], Activation.relu, False)
    assert loss.output.name == "softplus"


def test_a_part_that_fails_to_load_hurts_only_its_own_selection():
    assert compose(["loss=mse"]).loss.name == "mse"
    with pytest.raises(
        MetalossError, match=r"loss 'broken' \(no_such_module:Loss\) failed to load"
    ):
        compose(["loss=broken"])


def test_a_default_that_fails_to_load_can_be_switched_off(monkeypatch, parts):
    known = {key: part for key, part in parts.items() if key != ("tracker", "console")}
    monkeypatch.setattr(registry, "_registered", known)
    assert compose(["tracker=[]"]).tracker == {}
    with pytest.raises(MetalossError, match="unknown tracker 'console'"):
        compose([])


def test_a_part_registered_later_is_found():
    @registry.register("inner", "fresh")
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Fresh:
        lr: float = 0.5

    assert compose(["inner=fresh"]).inner.options == Fresh(lr=0.5)


def test_composing_leaves_hydras_process_state_as_it_was():
    before = GlobalHydra.instance().hydra
    compose([])
    with pytest.raises(MetalossError):
        compose(["inner.lr=x"])
    assert GlobalHydra.instance().hydra is before


def test_a_config_is_frozen_and_checked_when_made_by_hand():
    config = compose([])
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.steps = 3
    with pytest.raises(MetalossError, match=r"^batch_size=0: expected a whole number, at least 1$"):
        dataclasses.replace(config, batch_size=0)
    assert isinstance(config, RunConfig)
