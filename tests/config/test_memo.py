"""What is kept between compositions changes how long they take, and nothing else."""

import dataclasses
import importlib
from pathlib import Path

import hydra
import pytest

import metaloss
from metaloss import registry
from metaloss.compose import compose, memo
from metaloss.compose.resolve import from_hydra, own_hydra, publish_chosen, root
from metaloss.compose.words import for_hydra, parse
from metaloss.errors import MetalossError

from .config_parts import MLP, SGD

resolve = importlib.import_module("metaloss.compose.resolve")


@pytest.fixture(autouse=True)
def nothing_kept():
    memo._kept.clear()


@pytest.fixture
def asked(monkeypatch):
    """How often Hydra composes."""
    asked = []
    composing = hydra.compose
    monkeypatch.setattr(
        resolve.hydra, "compose", lambda *args: asked.append(args) or composing(*args)
    )
    return asked


def in_one_step(words):
    """Return what Hydra itself makes of the words."""
    parsed = parse(words)
    publish_chosen(parsed)
    with root({}, "") as name, own_hydra():
        return from_hydra(hydra.compose(name, for_hydra(parsed)))


WORDS = [
    ["loss=mlp", "loss.hidden=[7]", "steps=5"],
    ["steps=6", "loss.hidden=[8]", "loss=mlp"],
    ["inner={lr: 0.25}", "schedule=offline"],
    ["inner.lr=0.5", "schedule=offline", "inner={lr: 0.75}"],
    ["tracker=[]", "compile=off"],
    ["tracker=[wandb,console]", "tracker.wandb.project=here"],
    ["+preset=adalfl", "loss.hidden=[9]"],
    ["loss.hidden=[10]", "+preset=adalfl"],
    [],
]


def test_what_is_kept_changes_no_configuration():
    wanted = [in_one_step(words) for words in WORDS]
    for _ in range(2):
        assert [compose(words) for words in WORDS] == wanted


@pytest.mark.parametrize(
    "words",
    [
        ["loss=mlp", "loss.hiden=[7]", "stpes=5"],
        ["stpes=5", "loss.hidden=x"],
        ["loss.hidden=x", "stpes=5"],
        ["loss=mse", "loss.hidden=[7]"],
        ["loss=mlp", "loss=mse", "inner.lr=x"],
        ["steps=0"],
    ],
)
def test_a_mistake_is_told_as_if_nothing_were_kept(words):
    messages = []
    for before in ([], ["loss=mlp"], ["loss=mse"]):
        memo._kept.clear()
        compose(before)
        with pytest.raises(MetalossError) as error:
            compose(words)
        messages.append(str(error.value))
    assert len(set(messages)) == 1


def test_hydra_is_asked_once_for_the_same_choices(asked):
    for steps in range(1, 5):
        assert compose(["loss=mlp", f"steps={steps}"]).steps == steps
    assert len(asked) == 1
    compose(["loss=mse"])
    assert len(asked) == 2


def test_a_configuration_is_nobody_elses():
    first = compose(["loss=mlp", "loss.hidden=[3]"])
    second = compose(["loss=mlp"])
    assert second == in_one_step(["loss=mlp"])
    assert first.loss.options == MLP(hidden=[3])


def test_a_part_registered_between_two_calls_is_found():
    with pytest.raises(MetalossError, match="unknown inner 'later'"):
        compose(["inner=later"])

    @registry.register("inner", "later")
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Later(SGD):
        """Registered late."""

    assert isinstance(compose(["inner=later"]).inner.options, Later)


def test_a_name_that_stands_for_another_part_is_composed_anew(parts, monkeypatch):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Other(SGD):
        """Another part under the same name."""

        more: int = 3

    compose()
    part = parts["inner", "sgd"]
    monkeypatch.setitem(parts, ("inner", "sgd"), dataclasses.replace(part, cls=Other))
    assert compose().inner.options == Other()


def test_only_so_many_are_kept(monkeypatch, asked):
    monkeypatch.setattr(memo, "_MOST", 1)
    for words in (["loss=mlp"], ["loss=mse"], ["loss=mlp"]):
        compose(words)
    assert len(asked) == 3


def test_hydra_is_used_through_its_public_modules():
    sources = Path(metaloss.__file__).parent.rglob("*.py")
    imports = [
        line for path in sources for line in path.read_text().splitlines() if "hydra" in line
    ]
    assert any("from hydra." in line for line in imports)
    assert not [line for line in imports if "hydra._" in line]
