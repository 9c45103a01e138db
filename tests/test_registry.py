from dataclasses import dataclass
from importlib.metadata import EntryPoint

import pytest

import metaloss
from metaloss import registry
from metaloss.errors import MetalossError, unknown_name
from metaloss.losses import MSE, MLPLoss
from metaloss.losses.mlp import MLPLossConfig
from metaloss.registry import GROUPS
from metaloss.types import Link


class Dist:
    """What an entry point knows of the distribution that it comes from."""

    def __init__(self, name, version):
        self.name, self.version = name, version


@pytest.fixture
def announce(monkeypatch):
    """Return a function that announces entry points beside nothing else."""
    points = []
    monkeypatch.setattr(registry, "_registered", {})
    monkeypatch.setattr(
        registry, "entry_points", lambda group: [p for p in points if p.group == group]
    )

    def add(name, value, *, group="metaloss.losses", dist=None):
        point = EntryPoint(name=name, value=value, group=group)
        points.append(point._for(dist) if dist else point)

    return add


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of nothing."""

    size: int = 1


class Configured:
    """One line for people.

    More lines.
    """

    Config = Options

    def __init__(self, config, **context):
        self.config, self.context = config, context


class Bare:
    """A class without options."""


# ------------------------------------------------------------------------------------ by hand


def test_a_registered_class_is_found_and_built(announce):
    assert registry.register("loss", "mine")(Configured) is Configured
    part = registry.get("loss", "mine")
    assert (part.cls, part.source, part.summary) == (
        Configured,
        "this session",
        "One line for people.",
    )
    built = part.build(Options(size=3), link=Link.softmax)
    assert (built.config, built.context) == (Options(size=3), {"link": Link.softmax})
    assert registry.names("loss") == ["mine"]


def test_a_dataclass_is_its_own_options_and_its_own_object(announce):
    registry.register("schedule", "mine", source="a file")(Options)
    part = registry.get("schedule", "mine")
    assert part.config_class is Options
    assert part.source == "a file"
    config = Options(size=2)
    assert part.build(config) is config


def test_metaloss_register_is_this_function():
    assert metaloss.register is registry.register


def test_a_name_is_given_once(announce):
    registry.register("loss", "mine")(Configured)
    with pytest.raises(
        MetalossError, match="loss 'mine' is registered already, by this session: my file must"
    ):
        registry.register("loss", "mine", source="my file")
    announce("theirs", "metaloss.losses.mlp:MLPLoss", dist=Dist("other", "2.0"))
    with pytest.raises(
        MetalossError, match=r"loss 'theirs' is registered already, by other 2.0: this session mu"
    ):
        registry.register("loss", "theirs")
    # The same name in another group is another name.
    registry.register("model", "mine")(Configured)


def test_what_is_installed_while_a_program_runs_is_found(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    assert "later" not in registry.names("loss")
    info = tmp_path / "later-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: later\nVersion: 1.0\n")
    announced = "[metaloss.losses]\nlater = metaloss.losses.mlp:MLPLoss\n"
    (info / "entry_points.txt").write_text(announced)
    assert "later" in registry.names("loss")
    assert registry.entry_points("metaloss.losses") is registry.entry_points("metaloss.losses")


def test_a_class_without_options_is_refused_and_its_name_stays_free(announce):
    with pytest.raises(MetalossError, match=r"loss 'mine' .* has no options class: make it a froz"):
        registry.register("loss", "mine")(Bare)
    registry.register("loss", "mine")(Configured)


@pytest.mark.parametrize(
    "call",
    [
        lambda: registry.register("losses", "x"),
        lambda: registry.names("losses"),
        lambda: registry.get("losses", "mlp"),
        lambda: registry.name_of("losses", MSE),
    ],
)
def test_an_unknown_group_is_refused_with_the_nearest(call):
    with pytest.raises(MetalossError, match=r"unknown group 'losses': did you mean 'loss'\?"):
        call()


# ------------------------------------------------------------------------------ entry points


def test_an_announced_class_is_loaded_on_use(announce):
    announce("net", "metaloss.losses.mlp:MLPLoss", dist=Dist("somewhere", "1.2"))
    part = registry.get("loss", "net")
    assert (part.cls, part.config_class, part.source) == (MLPLoss, MLPLossConfig, "somewhere 1.2")


def test_names_hold_what_fails_to_load(announce):
    announce("broken", "no_such_module:Loss")
    announce("net", "metaloss.losses.mlp:MLPLoss")
    registry.register("loss", "a_hand_made")(Configured)
    assert registry.names("loss") == ["a_hand_made", "broken", "net"]
    assert registry.get("loss", "net").cls is MLPLoss


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no_such_module:Loss", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("metaloss.losses.mlp:NoSuchLoss", "AttributeError: .*NoSuchLoss"),
    ],
)
def test_a_part_that_fails_to_load_says_whose_and_why(announce, value, reason):
    announce("broken", value, dist=Dist("somewhere", "1.2"))
    with pytest.raises(
        MetalossError, match=rf"loss 'broken' \(somewhere 1.2\) failed to load: {reason}"
    ):
        registry.get("loss", "broken")


def test_a_name_announced_twice_names_both_owners(announce):
    announce("net", "metaloss.losses.mlp:MLPLoss", dist=Dist("one", "1.0"))
    announce("net", "metaloss.losses.handcrafted:MSE", dist=Dist("other", "2.0"))
    with pytest.raises(MetalossError, match=r"announced twice, by one 1.0, other 2.0: uninstall"):
        registry.get("loss", "net")


def test_the_same_object_announced_twice_is_one(announce):
    for dist in (Dist("metaloss", "1"), Dist("metaloss", "2")):
        announce("net", "metaloss.losses.mlp:MLPLoss", dist=dist)
    assert registry.get("loss", "net").cls is MLPLoss


def test_an_unknown_name_is_refused_with_the_nearest(announce):
    announce("mlp", "metaloss.losses.mlp:MLPLoss")
    announce("mse", "metaloss.losses.handcrafted:MSE")
    with pytest.raises(
        MetalossError, match=r"unknown loss 'mpl': did you mean 'mlp'\? \(allowed: mlp, mse\)"
    ):
        registry.get("loss", "mpl")


def test_a_class_has_a_name_without_being_imported(announce):
    announce("broken", "no_such_module:Loss")
    announce("net", "metaloss.losses.mlp:MLPLoss")
    registry.register("loss", "mine")(Configured)
    assert registry.name_of("loss", MLPLoss) == "net"
    assert registry.name_of("loss", Configured) == "mine"
    assert registry.name_of("loss", MSE) is None
    assert registry.name_of("model", MLPLoss) is None


# ---------------------------------------------------------------------------------- built-ins


@pytest.mark.parametrize("group", list(GROUPS))
def test_every_built_in_part_loads_and_its_options_have_defaults_and_help(group):
    import dataclasses

    found = [
        part
        for name in registry.names(group)
        if (part := registry.get(group, name)).source.startswith("metaloss ")
    ]
    assert found
    for part in found:
        assert part.summary.endswith((".", ";", ":")), part
        config = part.config_class()
        with pytest.raises(dataclasses.FrozenInstanceError):
            config.anything = 1
        for field in dataclasses.fields(config):
            assert field.kw_only, (part, field.name)
            assert field.metadata.get("help"), (part, field.name)


def test_an_unknown_name_without_a_near_one_lists_all():
    assert str(unknown_name("loss", "xyz", ["b", "a"])) == "unknown loss 'xyz': (allowed: a, b)"
    assert str(unknown_name("loss", "xyz", [])) == "unknown loss 'xyz': (allowed: none)"
