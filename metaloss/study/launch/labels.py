"""Names and groups in Weights & Biases for runs that are made together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from metaloss.config import RunConfig

_TRACKER = "wandb"


def labels_for(config: RunConfig, **labels: str) -> dict[str, str]:
    """Return the labels that the user has not chosen, as options of the tracker ``wandb``.

    Args:
        config: A run.
        labels: ``group``, ``job_type`` and ``notes``.
    """
    options: Any = config.tracker.get(_TRACKER)
    if options is None:
        return {}
    return {
        f"tracker.{_TRACKER}.{name}": label
        for name, label in labels.items()
        if label and getattr(options, name) is None
    }


def labelled(config: RunConfig, **labels: str) -> RunConfig:
    """Return the run with the labels that the user has not chosen."""
    chosen = {key.rpartition(".")[2]: label for key, label in labels_for(config, **labels).items()}
    if not chosen:
        return config
    options: Any = config.tracker[_TRACKER]
    return replace(config, tracker={**config.tracker, _TRACKER: replace(options, **chosen)})
