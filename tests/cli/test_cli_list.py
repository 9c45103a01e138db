"""``metaloss list``: every part, where it comes from, its options, and what failed to load."""

import io
from importlib.metadata import EntryPoint

import pytest
from rich.console import Console

from metaloss import registry
from metaloss.cli import tables


@pytest.fixture
def lines(cli):
    """Return a function that lists, each line's words joined by single spaces."""

    def call(*arguments):
        status, out, err = cli("list", *arguments)
        assert (status, err) == (0, "")
        return [" ".join(line.split()) for line in out.splitlines()]

    return call


def test_the_overview_has_every_registered_name_and_the_presets(lines):
    shown = lines()
    for group in registry.GROUPS:
        for name in registry.names(group):
            assert any(line.startswith(f"{group} {name} ") for line in shown), (group, name)
    assert any(line.startswith("+preset adalfl ") for line in shown)


def test_a_group_shows_options_with_defaults_and_help(lines):
    shown = lines("inner")
    assert "inner.nesterov false true or false use Nesterov momentum" in shown
    assert any(line.startswith("inner=sgd (metaloss ") for line in shown)


def narrow(*groups):
    """Return what a terminal of 80 columns shows: of these groups, or of all parts."""
    console = Console(width=80, file=io.StringIO())
    for shown in tables.overview(80) if not groups else ():
        console.print(shown)
    for group in groups:
        for shown in tables.details(group, 80):
            console.print(shown)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_80_columns_show_every_name_and_most_texts_on_one_line():
    lines = narrow()
    assert max(map(len, lines)) <= 80
    for group in registry.GROUPS:
        assert group in lines
        for name in registry.names(group):
            assert any(line.startswith(f"  {name} ") for line in lines), name
    texts = [line[26:].strip() for line in lines if line.startswith("  ")]
    assert max(map(len, texts)) > 45
    assert any("(metaloss-robust " in line for line in lines)
    # A table of four columns would need about 450 lines.
    assert len(lines) < 240


def test_80_columns_show_options_whole_with_their_help():
    lines = narrow("schedule", "task", "meta_optimizer")
    assert max(map(len, lines)) <= 80
    words = [" ".join(line.split()) for line in lines]
    assert any(line.startswith("schedule.offline_unroll ") for line in words)
    at = words.index("meta_optimizer.lr meta-learning rate η of online meta-steps, > 0")
    assert words[at + 1] == "a number; default 0.003"
    (title,) = (i for i, line in enumerate(words) if line.startswith("meta_optimizer=finite_diff"))
    whole = "Approximate meta-gradient: differences of first derivatives instead of second"
    assert " ".join(words[title + 1 : title + 3]).startswith(whole)


def test_a_plugins_part_shows_its_file(lines, plugin):
    shown = lines("model", "--plugin", plugin)
    assert f"model=tiny ({plugin})" in shown
    assert "model.width 3 a whole number units, at least 1" in shown
    assert "A tiny model." in shown


def test_a_part_that_failed_to_load_shows_why(lines, monkeypatch):
    broken = EntryPoint(name="broken", value="no_such_module:X", group="metaloss.losses")
    announced = registry._announced
    monkeypatch.setattr(
        registry,
        "_announced",
        lambda group: {**announced(group), **({"broken": [broken]} if group == "loss" else {})},
    )
    reason = "failed to load: ModuleNotFoundError: No module named 'no_such_module'"
    for arguments in ((), ("loss",)):
        assert reason in " ".join(lines(*arguments))


def test_presets_and_settings_have_tables(lines):
    assert "schedule.offline_steps 2500" in lines("preset")
    assert any(line.startswith("guard on one of on, off, raise ") for line in lines("settings"))


def test_an_unknown_group_is_an_error(cli):
    status, _, err = cli("list", "losses")
    assert status == 2
    assert err.startswith(
        "metaloss: error: unknown group 'losses': did you mean 'loss'? (allowed: "
    )
