"""How well wrong labels are found: `metaloss suspects`, the loss's last value, and cleanlab.

    python -m benchmarks.suspects fashion_mnist letterrecognition --seeds 2 --out found.jsonl

cleanlab is not a dependency: ``pip install cleanlab``. It gets probabilities of the same network,
trained by cross-entropy on the other two thirds of the training rows, with early stopping on the
trusted rows. The last value of the loss is that of the same network, trained by cross-entropy.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

import metaloss
from metaloss import registry
from metaloss.compose import compose
from metaloss.contracts import Task
from metaloss.core.runs.predict import outputs_for
from metaloss.types import Batch

FOLDS = 3
CROSS_ENTROPY = ("schedule=static", "loss=cross_entropy")


def words_of(name: str, data: Path) -> list[str]:
    """Return the words of a run on a data set."""
    tables = {"vehicle": "Class", "vowel": "Class", "letterrecognition": "lettr"}
    if name in tables:
        path = f"task.path={data / f'{name}.csv.gz'}"
        steps = 6000 if name == "letterrecognition" else 1500
        return ["task=csv", path, f"task.target={tables[name]}", f"steps={steps}"]
    if name == "fashion_mnist":
        return ["task=fashion_mnist", "task.subset=10000", "steps=4000"]
    return [f"task={name}", "steps=1500"]


def measure(words: Sequence[str], task: Task, clean: Task, seed: int) -> dict[str, Any]:
    """Return the AUROC of each method, and precision at the number of rows that cleanlab finds."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    labels = task.train.targets.numpy()
    noisy = labels != clean.train.targets.numpy()
    learned = scores(words, task)
    plain = scores([*words, *CROSS_ENTROPY], task)
    shares = held_out(words, task, seed)
    quality = -get_label_quality_scores(labels, shares)
    found = find_label_issues(labels, shares, return_indices_ranked_by="self_confidence")
    mine = np.argsort(-learned["score"])[: len(found)]
    return {
        "suspects": roc_auc_score(noisy, learned["score"]),
        "last loss": roc_auc_score(noisy, 1 - plain["last"]),
        "suspects, cross-entropy": roc_auc_score(noisy, plain["score"]),
        "cleanlab": roc_auc_score(noisy, quality),
        "found by cleanlab": len(found) / noisy.sum(),
        "precision of cleanlab": noisy[found].mean(),
        "precision of suspects": noisy[mine].mean(),
    }


def scores(words: Sequence[str], task: Task) -> dict[str, np.ndarray]:
    """Return what a run's suspects say of each training row, in the order of the task."""
    with TemporaryDirectory() as folder:
        run = metaloss.train([*words, f"output={folder}/run"], task=replace(task, places={}))
        table = run.suspects(task=replace(task, places={})).sort_index()
    return {name: table[name].to_numpy() for name in ("score", "last")}


def held_out(words: Sequence[str], task: Task, seed: int) -> np.ndarray:
    """Return the probabilities (N, C) of every row by a network that was not trained on it."""
    inputs, labels = task.train
    shares = np.zeros((len(labels), task.outputs))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    for train, rest in folds.split(labels, labels):
        part = replace(task, train=Batch(inputs[train], labels[train]), places={})
        more = ("schedule.early_stopping=10", "ledger=false")
        with TemporaryDirectory() as folder:
            given = [*words, *CROSS_ENTROPY, *more, f"output={folder}/run"]
            run = metaloss.train(given, task=part)
            outputs = outputs_for(run.folder, run.model, inputs[rest])
        shares[rest] = outputs.double().softmax(1).cpu().numpy()
    return shares


def main() -> None:
    """Measure, and write a line of JSON for each data set, noise and seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", help="digits, fashion_mnist, or a table")
    parser.add_argument("--data", type=Path, default=Path(), help="the folder of the tables")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--noise", type=float, nargs="+", default=[0.2, 0.4])
    parser.add_argument("--kinds", nargs="+", default=["symmetric", "pair"])
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    for seed, name, share, kind in itertools.product(
        range(given.seeds), given.names, given.noise, given.kinds
    ):
        words = [*words_of(name, given.data), f"seed={seed}", "tracker=[]"]
        noise = [f"task.label_noise={share}", f"task.noise_kind={kind}"]
        task, clean = (built([*words, *more], seed) for more in (noise, []))
        rest = [word for word in words if not word.startswith("task")]
        row = {"task": name, "noise": share, "kind": kind, "seed": seed}
        row |= {key: round(float(v), 4) for key, v in measure(rest, task, clean, seed).items()}
        print(json.dumps(row), flush=True)
        with given.out.open("a") as file:
            file.write(json.dumps(row) + "\n")


def built(words: Sequence[str], seed: int) -> Task:
    """Return the task that words name."""
    chosen = compose(list(words)).task
    task: Task = registry.get("task", chosen.name).build(chosen.options).build(seed)
    return task


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
