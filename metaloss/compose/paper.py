"""The rows of the AdaLFL paper's table as ready settings: ``+paper=NAME`` on the command line.

Each value has its source, a member of `Known`; see ``docs/paper.md``. The method is the preset
``adalfl``.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from metaloss.compose.presets import PRESETS, Preset


class Known(Enum):
    """The source of a setting."""

    read = "read in the paper"
    remembered = "remembered from the paper, not read again"
    code = "in the first author's public code for another paper (EvoMAL)"
    ours = "chosen here: the paper's is not known"


ADALFL = PRESETS["adalfl"]

# The settings of all rows.
COMMON = {
    "loss": Known.read,
    "loss.hidden": Known.read,
    "loss.activation": Known.read,
    "loss.output": Known.read,
    "loss.bias": Known.ours,
    "loss.class_offsets": Known.read,
    "schedule": Known.read,
    "schedule.offline_steps": Known.read,
    "schedule.unroll": Known.read,
    "schedule.offline_unroll": Known.read,
    "start": Known.read,
    "meta_optimizer.lr": Known.remembered,
    "meta_optimizer.offline_lr": Known.remembered,
    "task": Known.read,
    "model": Known.remembered,
    "inner": Known.remembered,
    "inner.lr": Known.remembered,
    "steps": Known.code,
    "batch_size": Known.code,
    "meta_batch_size": Known.ours,
    "log_every": Known.ours,
    "eval_every": Known.ours,
    "checkpoint_every": Known.ours,
}

# The inner optimizer's options.
REGRESSION = {"lr": 0.001}
GREY = {"lr": 0.01}
COLOUR = {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
WIDE = {"hidden": [1000, 1000]}


def _row(
    title: str,
    task: str,
    model: str,
    inner: Mapping[str, Any],
    steps: int,
    options: Mapping[str, Any] | None = None,
) -> Preset:
    known = dict(COMMON)
    known |= {f"inner.{name}": Known.remembered for name in inner}
    # The network's options: depth and width are part of a WRN's name, but not of an MLP's.
    source = Known.code if model == "mlp" else Known.remembered
    known |= {f"model.{name}": source for name in options or {}}
    return Preset(
        description=f"AdaLFL (arXiv 2301.13247) on {title}; for sources see docs/paper.md",
        choices={**ADALFL.choices, "task": task, "model": model, "inner": "sgd"},
        options={**ADALFL.options, "model": options or {}, "inner": inner},
        settings={
            "steps": steps,
            "batch_size": 128,
            "meta_batch_size": 128,
            # 100 logged steps, 50 evaluations, 10 checkpoints.
            "log_every": steps // 100,
            "eval_every": steps // 50,
            "checkpoint_every": steps // 10,
        },
        known={key: how.value for key, how in known.items()},
    )


SHORT, LONG = 10_000, 150_000

PAPER = {
    "communities_crime_mlp": _row(
        "Communities and Crime", "communities_crime", "mlp", REGRESSION, SHORT, WIDE
    ),
    "diabetes_mlp": _row("Diabetes", "diabetes", "mlp", REGRESSION, SHORT, WIDE),
    "california_housing_mlp": _row(
        "California Housing", "california_housing", "mlp", REGRESSION, SHORT, WIDE
    ),
    "mnist_logistic": _row("MNIST, logistic regression", "mnist", "logistic", GREY, SHORT),
    "mnist_mlp": _row("MNIST, an MLP", "mnist", "mlp", GREY, SHORT, WIDE),
    "mnist_lenet5": _row("MNIST, LeNet-5", "mnist", "lenet5", GREY, SHORT),
    "cifar10_vgg16": _row("CIFAR-10, VGG-16", "cifar10", "vgg16", COLOUR, LONG),
    "cifar10_allcnnc": _row("CIFAR-10, All-CNN-C", "cifar10", "allcnnc", COLOUR, LONG),
    "cifar10_resnet18": _row("CIFAR-10, ResNet-18", "cifar10", "resnet18", COLOUR, LONG),
    "cifar10_squeezenet": _row("CIFAR-10, SqueezeNet", "cifar10", "squeezenet", COLOUR, LONG),
    "cifar100_wrn_28_10": _row(
        "CIFAR-100, WRN-28-10", "cifar100", "wrn", COLOUR, LONG, {"depth": 28, "widen": 10}
    ),
    "svhn_wrn_16_8": _row("SVHN, WRN-16-8", "svhn", "wrn", COLOUR, LONG, {"depth": 16, "widen": 8}),
}
