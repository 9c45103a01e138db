"""The user's objects instead of registered parts, and their names in a config."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from metaloss.compose import chosen_name, read_file
from metaloss.compose.publish import DEFAULTS
from metaloss.config import RunConfig, Selected
from metaloss.errors import MetalossError

CUSTOM = "custom"


def with_custom(config: RunConfig, task: Any, model: Any, loss: Any) -> RunConfig:
    """Mark in the config which parts are objects from Python."""
    given = {"task": task, "model": model, "loss": loss}
    changes: dict[str, Any] = {
        name: Selected(name=CUSTOM, options={})
        for name, value in given.items()
        if value is not None
    }
    return replace(config, **changes) if changes else config


def refuse_words_for_objects(config: RunConfig, task: Any, model: Any, loss: Any) -> None:
    """Refuse words such as ``task.label_noise=0.4`` for a part that is an object: it has its own.

    Raises:
        MetalossError: If words name such a part or one of its options.
    """
    for group, value in {"task": task, "model": model, "loss": loss}.items():
        if value is not None and getattr(config, group).asked:
            raise MetalossError(
                f"{group}: both an object and words, which would have no effect: expected "
                "either; an object has its own options"
            )


def in_place_of_custom(file: Path, task: Any, model: Any, loss: Any) -> list[str]:
    """Return registered choices for parts that are "custom" in the file, to be replaced again.

    Raises:
        MetalossError: If the objects given are not those that the run was made with.
    """
    given = {"task": task, "model": model, "loss": loss}
    content, folder = read_file(file), file.parent
    words = []
    for group, value in given.items():
        name = chosen_name(content.get(group))
        if name == CUSTOM and value is None:
            raise MetalossError(
                f"--resume {folder}: the run was made with a {group} of your own: continue it "
                f"in Python, with metaloss.resume_run(folder, {group}=...)"
            )
        if name != CUSTOM and value is not None:
            raise MetalossError(
                f"--resume {folder}: the run was made with {group}={name}, not with a {group} of "
                "your own"
            )
        if name == CUSTOM:
            words.append(f"{group}={DEFAULTS[group]}")
    return words
