"""What the pages tell people to type works as it stands."""

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import typer

from metaloss import registry
from metaloss.cli.main import app
from metaloss.compose import compose, refuse_unused
from metaloss.compose.words import parse
from metaloss.starts import Imitate
from metaloss.study.spec.study_file import parse_row

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)(?: [^\n]*)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TITLED = re.compile(r'^```python title="(\w+\.py)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def blocks(page, language):
    return [text for found, text in BLOCK.findall(page.read_text("utf-8")) if found == language]


def plugin_files():
    """The files of the page on plugins: their texts by name."""
    text = (ROOT / "docs" / "plugins.md").read_text("utf-8")
    return dict(TITLED.findall(text))


def commands():
    """Every ``metaloss ...`` line of every page, as words."""
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] == ["metaloss"]:
                    yield pytest.param(words[1:], id=f"{page.stem}: {' '.join(words)}")


@pytest.fixture
def registered(monkeypatch):
    """Forget what a page registers."""
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.stem
)
def test_python_on_a_page_runs(page, registered, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # The code is the page's own. A fit of 2,000 steps before it goes on shows no more than a short
    # one, and took most of the time.
    fitted = Imitate._fitted
    monkeypatch.setattr(
        Imitate,
        "_fitted",
        lambda self, *given: fitted(replace(self, steps=min(self.steps, 100)), *given),
    )
    # One namespace a page: later blocks go on from earlier ones.
    names = {"__name__": "page"}
    for number, block in enumerate(blocks(page, "python")):
        exec(compile(block, f"{page.name}, block {number}", "exec"), names)


@pytest.mark.parametrize("words", list(commands()))
def test_commands_on_a_page_are_understood(words, registered, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plugins = plugin_files()
    group = typer.main.get_command(app)
    command = group.commands[words[0]]
    context = command.make_context(words[0], words[1:])
    given = context.params
    for file in given.get("plugin") or ():
        exec(compile(plugins[str(file)], str(file), "exec"), {"__name__": "page"})
    if words[0] == "train" and given["multirun"]:
        parse(given["words"], sweep=True)
        own = [word for word in given["words"] if not word.startswith("hydra")]
        given["words"] = [word.split(",")[0] for word in own]
    if words[0] == "train" and not given["resume"]:
        config = compose(given["words"])
        refuse_unused(config, [] if given["multirun"] else given["words"])
    if words[0] == "compare":
        for row in given["row"] or ():
            compose([*(given["words"] or ()), *parse_row(row).overrides])
    if words[0] == "check":
        assert given["name"] in registry.names(given["group"])


def test_every_flag_and_command_is_on_the_page_of_commands():
    text = (ROOT / "docs" / "commands.md").read_text("utf-8")
    flags = set()
    for name, command in typer.main.get_command(app).commands.items():
        assert f"`metaloss {name}" in text
        flags |= {flag for parameter in command.params for flag in parameter.opts if "--" in flag}
    assert "--resume" in flags
    # --out is said by --help alone.
    missing = {flag for flag in flags - {"--help", "--out"} if f"`{flag}" not in text}
    assert missing == set()


def test_no_line_of_python_is_cut_off():
    for page in PAGES:
        for block in blocks(page, "python"):
            assert all(len(line) <= 88 for line in block.splitlines()), page.name
