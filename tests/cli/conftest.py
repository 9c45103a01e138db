"""The command without the core: runs are recorded, not trained."""

import shutil
import sys
import types
from pathlib import Path

import pytest

import metaloss
from metaloss import registry
from metaloss.cli.main import main

# A plugin that a test names with --plugin: one model of its own.
PLUGIN = '''
from dataclasses import dataclass, field

from metaloss.registry import register


@register("model", "tiny")
@dataclass(frozen=True, kw_only=True)
class Tiny:
    """A tiny model."""

    width: int = field(default=3, metadata={"help": "units, at least 1"})
'''

# A core that trains nothing, for processes of their own.
FAKE_CORE = """
import json, os, sys, types
from pathlib import Path
from types import SimpleNamespace

from metaloss.errors import MetalossError

core = types.ModuleType("metaloss.core.runs.run")


def train_run(config, *, plugins=None):
    folder = Path(config.output)
    assert not list(folder.iterdir())
    if config.seed == 2:
        raise MetalossError("no such luck")
    if config.seed == 130:
        raise KeyboardInterrupt
    seen = {"model": config.model.name, "seed": config.seed, "plugins": plugins}
    (folder / "seen.json").write_text(json.dumps({**seen, "pid": os.getpid()}))
    status = "diverged" if config.seed == 3 else "ok"
    metrics = {"valid/error": config.inner.options.lr, "test/error": 0.5}
    summary = {"status": status, "goal": "min", "metrics": metrics}
    return SimpleNamespace(folder=folder, summary=SimpleNamespace(as_dict=lambda: summary))


core.train_run = train_run
sys.modules["metaloss.core.runs.run"] = core
"""


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    """Forget a test's plugins afterwards."""
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    monkeypatch.setenv("METALOSS_PLUGIN_FILES", "")
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("metaloss.cli.plugin_files."):
            del sys.modules[name]


@pytest.fixture(autouse=True)
def _own_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Return the folder of a run on a table of 60 rows."""
    folder = tmp_path_factory.mktemp("trained")
    lines = [f"{row % 7},{row % 3},{'yes' if row % 7 > 3 else 'no'}" for row in range(60)]
    (folder / "train.csv").write_text("\n".join(["x,z,y", *lines]))
    words = ["task=csv", f"task.path={folder / 'train.csv'}", "task.target=y", "tracker=[]"]
    words += ["schedule=static", "loss=cross_entropy", "steps=200", "model.hidden=[8]"]
    return metaloss.train([*words, "compile=off", f"output={folder / 'run'}"]).folder


@pytest.fixture
def run(trained, tmp_path):
    """Return such a run that a test may change."""
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture
def core(monkeypatch):
    """Stand in for what the command calls of ``core``; ``calls`` holds what it was asked."""
    fake = types.ModuleType("metaloss.core.runs.run")
    fake.calls, fake.status = [], "ok"

    def run(folder):
        summary = {"status": fake.status, "metrics": {"test/error": 0.25}}
        return types.SimpleNamespace(
            folder=Path(folder), summary=types.SimpleNamespace(as_dict=lambda: summary)
        )

    def train_runs(config, *, plugins=None):
        fake.calls.append((config, plugins))
        return [run("runs/it")]

    def resume_passes(folder, changes, *, plugins=None):
        fake.calls.append((folder, changes, plugins))
        return [run(folder)]

    fake.train_runs, fake.resume_passes = train_runs, resume_passes
    for name in ("run", "passes"):
        monkeypatch.setitem(sys.modules, f"metaloss.core.runs.{name}", fake)
    return fake


@pytest.fixture
def cli(capsys):
    """Run the command line in this process; return its status, output and error output."""

    def call(*arguments):
        status = main([str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    return path


@pytest.fixture
def fake_core(tmp_path):
    """A file for ``--plugin`` that also stands in for the core, in this process and in workers."""
    path = tmp_path / "fake.py"
    path.write_text(PLUGIN + FAKE_CORE)
    before = sys.modules.get("metaloss.core.runs.run")
    yield path
    sys.modules.pop("metaloss.core.runs.run", None)
    if before is not None:
        sys.modules["metaloss.core.runs.run"] = before
