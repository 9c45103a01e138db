"""The parts on the page of plugins pass their checks and train by the words given there."""

import importlib
import os
import re
import shlex
import sys
from importlib.metadata import EntryPoint

import pytest

from metaloss import registry
from metaloss.cli.main import main
from metaloss.core.execution import executor
from metaloss.errors import MetalossError
from metaloss.testing import check_part

from .test_pages import ROOT, blocks, plugin_files

PAGE = ROOT / "docs" / "plugins.md"
TEXT = PAGE.read_text("utf-8")
EXECUTOR = "metaloss_polite.py"
FILES = {name: text for name, text in plugin_files().items() if name != EXECUTOR}
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


@pytest.fixture
def polite(tmp_path, monkeypatch):
    """The page's executor, as if its package were installed; forgotten afterwards."""
    (tmp_path / EXECUTOR).write_text(plugin_files()[EXECUTOR])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    (announced,) = re.findall(r'metaloss\.executors"\]\n(\w+) = "([\w.:]+)"', TEXT)
    point = EntryPoint(*announced, group=executor.GROUP)
    monkeypatch.setattr(executor, "entry_points", lambda group: [point])
    yield executor.find("polite", "hydra/launcher=polite")
    sys.modules.pop("metaloss_polite", None)
    importlib.invalidate_caches()


def test_the_executor_calls_with_a_low_priority(polite):
    own = os.nice(0)
    with polite(niceness=19).open() as opened:
        assert opened.room == 2
        assert opened.submit(os.nice, 0).result() == 19
        with pytest.raises(ZeroDivisionError):
            opened.submit(divmod, 1, 0).result()
        with pytest.raises(executor.LostError):
            opened.submit(os._exit, 3).result()
    with pytest.raises(executor.StoppedError):
        opened.submit(os.nice, 0)
    assert os.nice(0) == own
    with pytest.raises(MetalossError, match=r"^hydra.launcher.niceness=20: expected 0 to 19"):
        polite(niceness=20)


def test_the_executor_trains_the_runs_of_a_comparison(polite, tmp_path):
    few = ["task=digits", "task.subset=100", "model.hidden=[4]", "steps=3", "compile=off"]
    words = ["compare", str(tmp_path / "out"), "--row", "ce: loss=cross_entropy", "--seeds", "0"]
    assert main([*words, *few, "schedule=static", "hydra/launcher=polite"]) == 0
    assert (tmp_path / "out" / "ce" / "seed0" / "summary.json").exists()
