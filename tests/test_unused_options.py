"""A word for an option that has no effect beside the others is refused; a file is not."""

import pytest

import metaloss
from metaloss.cli.main import main
from metaloss.compose import compose, refuse_unused, to_dict
from metaloss.errors import MetalossError
from metaloss.study.launch.launch import run_command

ONLINE, OFFLINE = "schedule=online", "schedule=offline"
FITTED = "schedule.verdict=freeze, back or start"
# Words, and what the last of them needs. The second words are those that make it count.
REFUSED = [
    ((ONLINE, "schedule.patience=3"), FITTED, ("schedule.verdict=back", "schedule.jury=0.5")),
    (
        ("schedule=replay", "schedule.first.patience=3"),
        "schedule.first.verdict=freeze, back or start",
        ("schedule.first.verdict=back", "schedule.first.jury=0.5"),
    ),
    (
        (OFFLINE, "schedule.judge_power=2.0"),
        "schedule.judge_at, such as schedule.judge_at=[1]",
        ("schedule.judge_at=[2]",),
    ),
    (
        (ONLINE, "schedule.offline_unroll=3"),
        "schedule.offline_steps, such as 1000",
        ("schedule.offline_steps=5",),
    ),
    (
        ("loss.decay=0.5",),
        "average among loss.inputs",
        ("loss.inputs=[target,prediction,average]",),
    ),
    (
        ("loss.activation=relu", "loss.beta=3.0"),
        "loss.activation=smooth_leaky_relu",
        ("loss.activation=smooth_leaky_relu",),
    ),
    (("loss=bootstrap", "loss.decay=0.5"), "loss.source=memory", ("loss.source=memory",)),
    (
        ("loss=correction", "loss.matrix=[1,0,0,1]", "loss.wrong=0.2"),
        "an empty",
        ("loss.matrix=[]",),
    ),
    (("loss=ldam", "loss.drw=1", "loss.drw_beta=0.9"), "loss.drw below 1", ("loss.drw=0.8",)),
    (
        ("loss=symbolic", "loss.coefficients=false", "loss.noise=0.1"),
        "loss.coefficients=true",
        ("loss.coefficients=true",),
    ),
    (
        (ONLINE, "meta_optimizer.rule=l2rw", "meta_optimizer.lr=0.1"),
        "a rule that moves φ, such as adam",
        ("meta_optimizer.rule=sgd",),
    ),
    (
        (OFFLINE, "meta_optimizer.lr=0.1"),
        "online meta-steps; for those of an offline phase there is meta_optimizer.offline_lr",
        ("meta_optimizer.offline_lr=0.1",),
    ),
    (
        (ONLINE, "meta_optimizer.offline_lr=0.1"),
        "an offline phase, such as schedule.offline_steps=1000; for online meta-steps there is "
        "meta_optimizer.lr",
        ("schedule.offline_steps=5",),
    ),
    ((OFFLINE, "meta_optimizer.ema=0.9"), "meta-steps in training", (ONLINE,)),
    (("inner.period=50",), "inner.schedule=cosine or linear", ("inner.schedule=cosine",)),
    (("inner=adam", "inner.step_size=5"), "inner.schedule=step", ("inner.schedule=step",)),
    (("inner.schedule=multistep",), "inner.milestones, such as", ("inner.milestones=[3]",)),
    (("inner.dampening=0.5",), "inner.momentum", ("inner.momentum=0.9",)),
    (("inner.bias_decay=false",), "inner.weight_decay", ("inner.weight_decay=0.1",)),
    (("task.noise_kind=pair",), "task.label_noise, such as", ("task.label_noise=0.2",)),
    (("task=diabetes", "task.outlier_size=2.0"), "task.label_noise", ("task.label_noise=0.2",)),
    (("task.noisy_validation=true",), "task.label_noise", ("task.label_noise=0.2",)),
    (("task=mnist", "task.padding=2"), "task.augment=crop or crop_flip", ("task.augment=crop",)),
    (
        ("task=csv", "task.trusted=a.csv", "task.valid_fraction=0.3"),
        "trusted rows that are drawn, and these are given",
        ("task.trusted=",),
    ),
]


@pytest.mark.parametrize(
    ("words", "needs", "more"), REFUSED, ids=[" ".join(one) for one, *_ in REFUSED]
)
def test_a_word_without_effect_is_refused_in_one_line(words, needs, more):
    with pytest.raises(MetalossError) as refused:
        refuse_unused(compose(words), words)
    key, _, value = words[-1].partition("=")
    assert str(refused.value).startswith(f"{key}={value} has no effect: it needs {needs}")
    words = [*words, *more]
    refuse_unused(compose(words), words)


def test_a_share_without_effect_takes_no_room():
    words = ["task=csv", "task.trusted=a.csv", "task.test_fraction=0.9"]
    refuse_unused(compose(words), words)
    with pytest.raises(MetalossError, match="expected a sum below 1"):
        compose(["task=csv", "task.test_fraction=0.9"])


def test_defaults_and_files_are_not_refused():
    words = ["schedule=online", "schedule.patience=5"]
    refuse_unused(compose(words), words)
    old = to_dict(compose(["schedule=online", "loss=mlp"]))
    old["schedule"]["patience"], old["loss"]["decay"] = 3, 0.5
    again = compose(["steps=7"], old)
    refuse_unused(again, ["steps=7"])
    assert (again.schedule.options.patience, again.loss.options.decay) == (3, 0.5)


@pytest.mark.parametrize("words", [["schedule={patience: 3}"], {"schedule.patience": 3}], ids=str)
def test_nothing_is_trained(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MetalossError, match="patience=3 has no effect: it needs"):
        metaloss.train(words)
    assert not list(tmp_path.iterdir())


def test_rows_of_a_comparison_share_words(tmp_path, capfd):
    words = ["train", "--cfg", "schedule=online", "schedule.patience=3"]
    assert run_command(words, tmp_path / "log") == 0
    assert main(words) == 2
    assert capfd.readouterr().err.count("schedule.patience=3 has no effect") == 1
