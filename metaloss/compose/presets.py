"""Ready settings under one name: ``+preset=NAME`` on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Choices and options under one name. Other words on the command line override them.

    Attributes:
        description: One line to show, with the source.
        choices: Names of parts by group.
        options: Values by group and option.
        settings: Values of keys that belong to no part.
        known: The source of each value, to show, by key.
    """

    description: str
    choices: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    known: Mapping[str, str] = field(default_factory=dict)


PRESETS = {
    # The best of what was tried on the tasks that docs/guides/one_default.md names.
    "auto": Preset(
        description="One choice for tasks with trusted rows, see docs/guides/one_default.md",
        choices={"loss": "soft_targets", "schedule": "online"},
        options={
            "schedule": {"train_on": "train+validation", "judge_rows": 0.25},
            "meta_optimizer": {"lr": 1e-3, "rows": 0.25},
            "task": {"label_smoothing": 0.1},
        },
        settings={"ema": 0.998},
    ),
    # "Meta-Learning Adaptive Loss Functions", TMLR 2025, arXiv 2301.13247: the loss of section 3,
    # the offline phase, then online. Both rates are from memory.
    "adalfl": Preset(
        description="AdaLFL as published (arXiv 2301.13247): random start, offline, then online",
        choices={"loss": "mlp", "schedule": "online", "start": "random"},
        options={
            "loss": {
                "hidden": [40, 40],
                "activation": "smooth_leaky_relu",
                "output": "linear",
                "bias": True,
                "class_offsets": 0,
            },
            "schedule": {"offline_steps": 2500, "unroll": 1, "offline_unroll": 1},
            "meta_optimizer": {"lr": 1e-5, "offline_lr": 1e-3},
        },
    ),
    # "Meta Learning via Learned Loss", arXiv 1906.05374; the widths are from its code.
    "ml3": Preset(
        description="ML³ as published (arXiv 1906.05374): random start, learned offline, frozen",
        choices={"loss": "mlp", "schedule": "offline", "start": "random"},
        options={
            "loss": {
                "hidden": [50, 50],
                "activation": "relu",
                "output": "softplus",
                "bias": False,
                "class_offsets": 0,
            },
            "schedule": {"unroll": 1},
            "meta_optimizer": {"offline_lr": 1e-3},
        },
    ),
}
