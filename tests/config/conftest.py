"""A small, fixed registry: messages are compared word by word, whatever is installed."""

from importlib.metadata import EntryPoint

import pytest

from metaloss import registry

from .config_parts import PARTS


@pytest.fixture(autouse=True)
def parts(monkeypatch):
    """Replace the registry's content; a distribution announces one loss that fails to load."""
    announced = EntryPoint(name="broken", value="no_such_module:Loss", group="metaloss.losses")
    monkeypatch.setattr(
        registry, "_announced", lambda group: {"broken": [announced]} if group == "loss" else {}
    )
    known = {
        (group, name): registry.Part(group=group, name=name, cls=cls, source="tests 1.0")
        for (group, name), cls in PARTS.items()
    }
    monkeypatch.setattr(registry, "_registered", known)
    return known


@pytest.fixture
def config_file(tmp_path):
    """Return a function that writes a configuration file and returns its path."""

    def write(text):
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write
