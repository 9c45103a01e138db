"""An exported loss, and ways to change its files."""

import json

import pytest
from safetensors.torch import load_file, save_file

from metaloss.losses.export import DESCRIPTION, WEIGHTS, pack

from .families import build, phi_of


def write_export(folder, loss, provenance=None):
    weights, description = pack(loss, phi_of(loss), provenance or {"task": "digits"})
    folder.mkdir(exist_ok=True)
    (folder / WEIGHTS).write_bytes(weights)
    (folder / DESCRIPTION).write_bytes(description)
    return folder


@pytest.fixture
def folder(tmp_path):
    """Return a folder with an exported loss of 2·3 + 3 + 3 numbers."""
    return write_export(tmp_path / "loss", build("mlp", hidden=[3]).float())


@pytest.fixture
def description(folder):
    """Return a function that changes one key of ``loss.json`` (None: takes it out)."""

    def change(key, value):
        content = json.loads((folder / DESCRIPTION).read_text())
        content[key] = value
        if value is None:
            del content[key]
        (folder / DESCRIPTION).write_text(json.dumps(content))

    return change


@pytest.fixture
def weights(folder):
    """Return a function that replaces φ by what it makes of φ."""

    def change(function):
        save_file(function(load_file(folder / WEIGHTS)), folder / WEIGHTS)

    return change
