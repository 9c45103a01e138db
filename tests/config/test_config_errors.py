"""Every wrong word is told in one line: what was got, what is allowed, the nearest valid name."""

import dataclasses

import pytest
from torch import nn

from metaloss import registry
from metaloss.compose import compose
from metaloss.compose.words import parse
from metaloss.errors import MetalossError

KEYS = (
    "batch_size, channels_last, checkpoint_every, compile, deterministic, device, ema, eval_every, "
    "guard, inner, ledger, log_every, loss, meta_batch_size, meta_optimizer, model, output, "
    "precision, record_phi, schedule, seed, seeds, start, steps, task, tf32, tracker"
)
MESSAGES = [
    # Names that do not exist.
    ("stpes=3", f"unknown key 'stpes': did you mean 'steps'? (allowed: {KEYS})"),
    ("defaults=3", f"unknown key 'defaults': did you mean 'model'? (allowed: {KEYS})"),
    (
        "inner.lrr=3",
        "unknown option 'inner.lrr' of inner=sgd: did you mean 'inner.lr'? "
        "(allowed: inner.lr, inner.momentum)",
    ),
    (
        "loss.act=relu",
        "unknown option 'loss.act' of loss=mlp: did you mean 'loss.activation'? "
        "(allowed: loss.activation, loss.bias, loss.bounds, loss.class_offsets, loss.hidden, "
        "loss.inputs, loss.output)",
    ),
    (
        "loss.bounds.lo=1",
        "unknown option 'loss.bounds.lo': did you mean 'loss.bounds.low'? "
        "(allowed: loss.bounds.high, loss.bounds.low)",
    ),
    ("task=digts", "unknown task 'digts': did you mean 'digits'? (allowed: digits)"),
    ("+preset=adl", "unknown preset 'adl': did you mean 'adalfl'? (allowed: adalfl, auto, ml3)"),
    (
        "tracker=[wand]",
        "unknown tracker 'wand': did you mean 'wandb'? (allowed: console, wandb)",
    ),
    (
        "tracker.wandb.project=p",
        "tracker.wandb is set, but this tracker is not chosen: add tracker=[wandb]",
    ),
    (
        "tracker.wandbb.project=p",
        "unknown tracker 'wandbb': did you mean 'wandb'? (allowed: console, wandb)",
    ),
    # Values of the wrong kind.
    ("steps=3.5", "steps=3.5: expected a whole number"),
    ("steps=null", "steps=null: expected a whole number"),
    ("deterministic=3.5", "deterministic=3.5: expected true or false"),
    ("inner.lr=fast", "inner.lr=fast: expected a number"),
    ("inner.lr=[1]", "inner.lr=[1]: expected a number"),
    ("task.subset=few", "task.subset=few: expected a whole number or null"),
    ("loss.hidden=3", "loss.hidden=3: expected a list of whole numbers"),
    ("loss.hidden=[a]", "loss.hidden[0]=a: expected a whole number"),
    ("loss.bounds=3", "loss.bounds=3: expected options (low, high)"),
    (
        "loss.activation=rulu",
        "unknown value of loss.activation 'rulu': did you mean 'relu'? "
        "(allowed: relu, smooth_leaky_relu)",
    ),
    ("guard=true", "guard=true: expected one of on, off, raise"),
    (
        "precision=fp16",
        "unknown value of precision 'fp16': did you mean 'bf16'? (allowed: bf16, fp32)",
    ),
    ("loss=3", "'loss=3': expected a name (allowed: broken, mlp, mse, powered)"),
    ("loss=[mlp]", "'loss=[mlp]': expected a name (allowed: broken, mlp, mse, powered)"),
    ("task=null", "'task=null': expected a name (allowed: digits)"),
    ("tracker=3", "'tracker=3': expected names such as [console] (allowed: console, wandb)"),
    ("tracker=[console,console]", "'tracker=[console,console]': a name occurs twice"),
    (
        "tracker.console=3",
        "tracker.console=3: expected options by name, such as tracker.console.OPTION=VALUE",
    ),
    # Values out of range.
    ("steps=0", "steps=0: expected a whole number, at least 1"),
    ("seed=-1", "seed=-1: expected a whole number, at least 0"),
    ("meta_batch_size=-4", "meta_batch_size=-4: expected a whole number, at least 1"),
    ("device=gpu", "device=gpu: expected auto, cpu, cuda or cuda:N"),
    ("output=''", "output='': expected a folder, or null for a default one"),
    ("inner.lr=-1", "inner=sgd: lr=-1.0: expected a positive number"),
    # Missing values.
    ("loss=powered", "loss.power has no default: give loss.power=VALUE"),
    ("device=???", "'device=???': expected a value instead of ???"),
    # What users cannot set.
    ("task.name=other", "task.name cannot be set: to choose another part, use task=NAME"),
    (
        "tracker={console:{name:x}}",
        "tracker.console.name cannot be set: to choose another part, use tracker=[NAME]",
    ),
    ("loss={name:mse}", "loss.name cannot be set: to choose another part, use loss=NAME"),
    (
        "tracker.console.name=x",
        "tracker.console.name cannot be set: to choose another part, use tracker=[NAME]",
    ),
    # Grammar.
    ("online", "cannot read 'online': expected KEY=VALUE such as schedule=online"),
    ("=3", "cannot read '=3': expected KEY=VALUE such as schedule=online"),
    (
        "steps=[1",
        "cannot read 'steps=[1': no viable alternative at input '[1'; expected KEY=VALUE, and "
        "quotes around special characters: \"KEY='a=b, c'\"",
    ),
    (
        "~loss",
        "'~loss': expected KEY=VALUE without a sign; only +preset=NAME and +paper=NAME have one",
    ),
    (
        "++steps=3",
        "'++steps=3': expected KEY=VALUE without a sign; only +preset=NAME and +paper=NAME "
        "have one",
    ),
    (
        "+loss.new=3",
        "'+loss.new=3': expected KEY=VALUE without a sign; only +preset=NAME and +paper=NAME "
        "have one",
    ),
    ("preset=ml3", "'preset=ml3': expected +preset=ml3"),
    ("paper=mnist_mlp", "'paper=mnist_mlp': expected +paper=mnist_mlp"),
    ("loss@a=mlp", "'loss@a=mlp': expected KEY=VALUE without '@'"),
    ("loss/hidden=3", "'loss/hidden=3': expected dots instead of slashes: loss.hidden"),
    (
        "loss=mlp,mse",
        "'loss=mlp,mse' has several values: add --multirun, or write a list as [a,b]",
    ),
    # Nothing is looked up, imported or evaluated.
    ("output=${oc.env:HOME}", "'output=${oc.env:HOME}': interpolations (${...}) are not allowed"),
    ("output='${seed}'", "\"output='${seed}'\": interpolations (${...}) are not allowed"),
    (
        "loss={hidden:[${seed}]}",
        "'loss={hidden:[${seed}]}': interpolations (${...}) are not allowed",
    ),
    (
        "loss._target_=os.system",
        "unknown option 'loss._target_' of loss=mlp: "
        "(allowed: loss.activation, loss.bias, loss.bounds, loss.class_offsets, loss.hidden, "
        "loss.inputs, loss.output)",
    ),
    ("hydra.run.dir=x", "'hydra.run.dir=x': Hydra's settings need --multirun"),
]


@pytest.mark.parametrize(("word", "message"), MESSAGES, ids=[word for word, _ in MESSAGES])
def test_message(word, message):
    with pytest.raises(MetalossError) as caught:
        compose([word])
    assert str(caught.value) == message


def test_an_option_of_another_choice_is_unknown():
    with pytest.raises(MetalossError) as caught:
        compose(["loss=mse", "loss.hidden=[3]"])
    assert str(caught.value) == "unknown option 'loss.hidden' of loss=mse: (allowed: none)"


def test_a_preset_that_does_not_fit_the_choice_says_what_it_sets_and_what_to_do():
    with pytest.raises(MetalossError) as caught:
        compose(["loss=mse", "+preset=ml3"])
    assert str(caught.value) == (
        "+preset=ml3 sets loss.hidden=[50, 50], and loss=mse has no such option: choose loss=mlp, "
        "or leave out +preset=ml3"
    )


def test_what_a_strangers_class_raises_becomes_one_line():
    @registry.register("inner", "fussy")
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Fussy:
        lr: float = 0.5

        def __post_init__(self):
            raise TypeError("not\n  today")

    with pytest.raises(MetalossError, match=r"^inner=fussy: not today$"):
        compose(["inner=fussy"])


def test_an_option_called_name_is_refused_when_chosen():
    @registry.register("inner", "named")
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Named:
        name: str = "x"

    assert compose([]).inner.name == "sgd"
    with pytest.raises(MetalossError) as caught:
        compose(["inner=named"])
    expected = "inner 'named' (this session) has an option 'name', which is reserved: rename it"
    assert str(caught.value) == expected


def test_options_that_no_config_can_hold_are_refused_when_chosen():
    @registry.register("inner", "odd")
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Odd:
        handle: set = dataclasses.field(default_factory=set)

    with pytest.raises(MetalossError, match="has options of an unsupported type: "):
        compose(["inner=odd"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({3: 4}, "config key 3: expected a string"),
        (
            {"loss.hidden": {1, 2}},
            "loss.hidden={1, 2} is of type set: expected None, a boolean, a number, text or "
            "a list of these",
        ),
        (
            {"model": nn.Sequential(nn.ReLU(), nn.ReLU())},
            "model=Sequential( (0): ReLU() (1): ReLU() ) is of type Sequential: expected None, a "
            "boolean, a number, text or a list of these; an object of your own is the argument "
            "model of metaloss.train",
        ),
        (
            {"task": {"name": "mnist1d"}},
            "task.name cannot be set: to choose another part, use task=NAME",
        ),
    ],
)
def test_mapping_messages(values, message):
    with pytest.raises(MetalossError) as caught:
        compose(values)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (
            "hydra.job.chdir=true",
            "'hydra.job.chdir=true': unknown setting of Hydra (allowed: hydra/launcher, "
            "hydra/sweeper, hydra.launcher, hydra.sweeper, hydra.sweep.subdir)",
        ),
        (
            "hydra.launcher._target_=os.system",
            "'hydra.launcher._target_=os.system': _target_ is not allowed",
        ),
        (
            "hydra.sweeper={params:[{_target_:x}]}",
            "'hydra.sweeper={params:[{_target_:x}]}': _target_ is not allowed",
        ),
        (
            "loss=mlp,msee",
            "unknown loss 'msee': did you mean 'mse'? (allowed: broken, mlp, mse, powered)",
        ),
        (
            "+preset=ml3,ml4",
            "unknown preset 'ml4': did you mean 'ml3'? (allowed: adalfl, auto, ml3)",
        ),
        ("seed=1,'${x}'", "\"seed=1,'${x}'\": interpolations (${...}) are not allowed"),
    ],
)
def test_sweep_messages(word, message):
    with pytest.raises(MetalossError) as caught:
        parse([word], sweep=True)
    assert str(caught.value) == message
