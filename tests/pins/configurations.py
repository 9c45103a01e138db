"""Twelve small runs that together use every schedule, engine, inner optimizer and loss family."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import torch

import metaloss
from metaloss.core.storage.checkpoint import load_newest
from metaloss.losses.export import load_loss

_BASE = (
    "task=digits",
    "task.subset=200",
    "model.hidden=[8]",
    "steps=8",
    "start.steps=20",
    "eval_every=4",
    "log_every=2",
    "checkpoint_every=4",
    "guard=off",
    "compile=off",
    "tracker=[]",
)
_DIABETES = ("task=diabetes", "inner.lr=0.01")

RUNS: dict[str, tuple[str, ...]] = {
    "online": ("schedule=online", "model.batch_norm=true"),
    "online_unroll": (
        "schedule=online",
        "schedule.unroll=3",
        "steps=9",
        "inner=adam",
        "meta_optimizer=finite_difference",
        # Adam would divide differences, which are half rounding, by their own size.
        "meta_optimizer.rule=sgd",
    ),
    "online_next": (
        "schedule=online",
        "schedule.meta_batch=next",
        "inner=rmsprop",
        "inner.lr=0.01",
        "meta_optimizer.rule=sgd",
    ),
    "online_train": ("schedule=online", "schedule.meta_batch=train", "loss=scaled", "inner=adamw"),
    "online_higher": (
        "schedule=online",
        "schedule.period=2",
        "loss=symbolic",
        "meta_optimizer=higher",
        "model.dropout=0.2",
    ),
    "offline": (
        "schedule=offline",
        "schedule.offline_steps=4",
        "schedule.unroll=2",
        "loss=taylor",
        "meta_optimizer=torchopt",
        "start=random",
    ),
    "static": (
        "schedule=static",
        "loss=gce",
        "inner.momentum=0.9",
        "inner.nesterov=true",
        "task.label_noise=0.4",
    ),
    "static_tail": (
        "schedule=static",
        "schedule.early_stopping=2",
        "loss=logit_adjusted",
        "task.imbalance=10",
        "model=linear",
    ),
    "online_both": (
        "schedule=online",
        "schedule.train_on=train+validation",
        "task.label_smoothing=0.1",
    ),
    "regression": (*_DIABETES, "schedule=online", "schedule.unroll=2"),
    "traced": ("schedule=online", "compile=trace", "inner.schedule=cosine"),
}
SEEDS = ("schedule=online", "seeds=2")


def trained(words: tuple[str, ...], folder: Path) -> dict[str, Any]:
    """Train, and return what the run came to."""
    base = [word for word in _BASE if not (words[0] == "task=diabetes" and "task." in word)]
    base = [word for word in base if not ("model=linear" in words and "model." in word)]
    base = [word for word in base if not ("start=random" in words and "start." in word)]
    metaloss.train([*base, *words, f"output={folder}"])
    return seen(folder)


def trained_seeds(folder: Path) -> dict[str, Any]:
    """Train two seeds together, and return what each came to."""
    metaloss.train_seeds([*_BASE, *SEEDS, f"output={folder}"])
    return {path.name: seen(path) for path in sorted(folder.iterdir()) if path.is_dir()}


def seen(folder: Path) -> dict[str, Any]:
    """Return a run's journal, φ, the keys of its last checkpoint, and its metrics."""
    lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    summary = json.loads((folder / "summary.json").read_text())
    loss = load_loss(folder)
    checkpoint, _ = load_newest(folder / "checkpoints", torch.device("cpu"))
    return {
        "journal": [{k: v for k, v in line.items() if not k.startswith("time/")} for line in lines],
        "phi": {name: value.flatten().tolist()[:40] for name, value in loss.named_parameters()},
        "checkpoint": sorted(checkpoint or {}),
        "status": summary["status"],
        "metrics": summary["metrics"],
    }


def rows(path: Path, without: set[str]) -> list[dict[str, str]]:
    """Return the rows of a study's CSV file, but for what is measured in seconds."""
    with path.open(newline="") as file:
        return [
            {name: value for name, value in row.items() if name not in without}
            for row in csv.DictReader(file)
        ]
