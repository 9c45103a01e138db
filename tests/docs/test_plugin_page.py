"""The parts on the page of plugins pass their checks and train by the words given there."""

import re
import shlex

import pytest

from metaloss import registry
from metaloss.cli.main import main
from metaloss.testing import check_part

from .test_pages import ROOT, blocks, plugin_files

PAGE = ROOT / "docs" / "plugins.md"
TEXT = PAGE.read_text("utf-8")
FILES = plugin_files()
COMMANDS = [shlex.split(line) for block in blocks(PAGE, "sh") for line in block.splitlines()]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with the page's files; what they register is forgotten."""
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_every_kind_of_part_that_people_write_has_an_example():
    groups = set(re.findall(r'@register\("(\w+)"', TEXT))
    assert groups == {"loss", "model", "schedule", "inner", "task", "tracker"}
    assert len(FILES) == 6


@pytest.mark.parametrize("name", FILES)
def test_an_example_passes_its_contract_checks(name, folder):
    exec(compile(FILES[name], name, "exec"), {"__name__": "page"})
    ((group, part),) = re.findall(r'@register\("(\w+)", "(\w+)"', FILES[name])
    results = check_part(group, part)
    assert len(results) > 3
    assert [result for result in results if not result.passed] == []


@pytest.mark.parametrize(
    "words", [words for words in COMMANDS if words[1] == "train"], ids=lambda words: words[3]
)
def test_an_example_trains(words, folder, capsys):
    few = ["steps=4", "eval_every=4", "log_every=2", "output=run"]
    few += [] if "start=keep" in words else ["start.steps=200"]
    words = [word.replace("schedule.rest=100", "schedule.rest=2") for word in words]
    assert main([*words[1:], *few]) == 0
    assert (folder / "run" / "summary.json").exists()
    if "best.py" in words:
        assert (folder / "run" / "best.json").exists()


def test_every_example_is_checked_and_trained_by_a_command():
    plugins = [words[words.index("--plugin") + 1] for words in COMMANDS]
    assert set(plugins) == set(FILES)
