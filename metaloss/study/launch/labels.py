"""Names and groups in Weights & Biases for runs that are made together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from metaloss.config import RunConfig


def labels_for(config: RunConfig, **labels: str) -> dict[str, str]:
    """Return the labels that the user has not chosen, for the tracker ``wandb``.

    Args:
        config: A run.
        labels: ``group``, ``job_type`` and ``notes``.
    """
    options = config.tracker.get("wandb")
    return {n: v for n, v in labels.items() if options and v and getattr(options, n) is None}


def labelled(config: RunConfig, **labels: str) -> RunConfig:
    """Return the run with the labels that the user has not chosen."""
    if not (chosen := labels_for(config, **labels)):
        return config
    options: Any = config.tracker["wandb"]
    return replace(config, tracker={**config.tracker, "wandb": replace(options, **chosen)})
