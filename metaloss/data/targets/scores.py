"""Further metrics of finished runs, by scikit-learn: F1, AUROC, R² and others."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from torch import Tensor

from metaloss.contracts import Task
from metaloss.contracts.tasks import Pipeline
from metaloss.data.targets.metrics import IGNORED
from metaloss.errors import unknown_name
from metaloss.types import Link

# From targets (n,) or (n, C), predictions of the same shape, and probabilities (n, C).
_Score = Callable[[np.ndarray, np.ndarray, np.ndarray], float]


def check_scores(names: Iterable[str], link: Link, metric_name: str) -> tuple[str, ...]:
    """Return the names of further metrics, without the task's own metric.

    Raises:
        MetalossError: If a link has no such metric; the message has the nearest name.

    Example:
        >>> check_scores(["error", "f1_macro"], Link.softmax, "error")
        ('f1_macro',)
    """
    known = _scores(link)
    further = tuple(dict.fromkeys(name for name in names if name != metric_name))
    for name in further:
        if name not in known:
            raise unknown_name("metric", name, [metric_name, *known])
    return further


def score_names(link: Link) -> list[str]:
    """Return the names of the metrics that exist for a link.

    Example:
        >>> score_names(Link.identity)
        ['rmse', 'mae', 'r2']
    """
    return list(_scores(link))


def scores(
    names: Iterable[str],
    outputs: Tensor,
    targets: Tensor,
    *,
    link: Link,
    pipeline: Pipeline | None = None,
    ignore_index: int = IGNORED,
) -> dict[str, float]:
    """Return metrics by name; NaN where one is not defined, such as AUROC with one class.

    Classes: ``accuracy``, ``balanced_accuracy``, ``f1_macro``, ``f1_weighted``, ``auroc`` (the mean
    over classes, each against the others), ``average_precision`` (likewise), ``log_loss`` in nats,
    ``mcc``. Yes/no questions: ``f1_macro``, ``auroc`` and ``average_precision``, means over the
    questions. Values: ``rmse`` and ``mae`` in the units of the targets, ``r2``; means over outputs.

    Args:
        names: From `score_names`.
        outputs: Raw outputs (B, C, *).
        targets: Class indices (B, *), soft labels (B, C, *) or values (B, C, *).
        link: What turns outputs into predictions.
        pipeline: For the units of values; None: those of the targets given.
        ignore_index: The class index that does not count.

    Example:
        >>> import torch
        >>> outputs = torch.tensor([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0]])
        >>> scores(["accuracy", "auroc"], outputs, torch.tensor([0, 1, 1]), link=Link.softmax)
        {'accuracy': 0.6666666666666666, 'auroc': 0.75}
    """
    flat, wanted = _rows(outputs), targets
    if link is Link.softmax:
        wanted = targets.argmax(1) if targets.is_floating_point() else targets
        wanted = wanted.reshape(-1)
        flat, wanted = flat[wanted != ignore_index], wanted[wanted != ignore_index]
        shares, guesses = flat.softmax(1), flat.argmax(1)
    else:
        wanted = _rows(targets)
        shares = flat.sigmoid()
        guesses = (flat > 0).long() if link is Link.sigmoid else flat
        if link is Link.sigmoid:
            wanted = (wanted > 0.5).long()
        elif pipeline is not None:
            guesses, wanted = pipeline.in_units(flat), pipeline.in_units(wanted)
    known = _scores(link)
    arrays = [values.numpy() for values in (wanted, guesses, shares)]
    return {name: _defined(known[name], arrays) for name in names}


def task_scores(task: Task, outputs: Tensor, targets: Tensor) -> dict[str, float]:
    """Return the further metrics of a task, ``task.metrics``, by name."""
    return scores(
        task.metrics,
        outputs,
        targets,
        link=task.link,
        pipeline=task.pipeline,
        ignore_index=task.ignore_index,
    )


def confusion(outputs: Tensor, targets: Tensor, *, ignore_index: int = IGNORED) -> np.ndarray:
    """Return the counts (C, C) of true classes (rows) by predicted classes (columns).

    Args:
        outputs: Raw outputs (B, C, *).
        targets: Class indices (B, *) or soft labels (B, C, *).
        ignore_index: The class index that does not count.

    Example:
        >>> import torch
        >>> confusion(torch.eye(2)[[0, 1, 1]], torch.tensor([0, 1, 0])).tolist()
        [[1, 1], [0, 1]]
    """
    from sklearn.metrics import confusion_matrix

    targets = targets.argmax(1) if targets.is_floating_point() else targets
    counted = targets != ignore_index
    guesses = outputs.argmax(1)[counted].cpu().numpy()
    labels = range(outputs.shape[1])
    return confusion_matrix(targets[counted].cpu().numpy(), guesses, labels=labels)


def _rows(values: Tensor) -> Tensor:
    """Return values (B, C, *) as (n, C) in float64: every position is a row."""
    return values.detach().cpu().double().movedim(1, -1).reshape(-1, values.shape[1])


def _defined(score: _Score, arrays: list[np.ndarray]) -> float:
    if not all(np.isfinite(values).all() for values in arrays) or not len(arrays[0]):
        return float("nan")
    with warnings.catch_warnings():
        # scikit-learn warns of classes without rows; what is then not defined is NaN here.
        warnings.simplefilter("ignore")
        try:
            return float(score(*arrays))
        except ValueError:
            return float("nan")


def _scores(link: Link) -> Mapping[str, _Score]:
    from sklearn import metrics as of

    if link is Link.identity:
        return {
            "rmse": lambda y, guess, p: of.root_mean_squared_error(y, guess),
            "mae": lambda y, guess, p: of.mean_absolute_error(y, guess),
            "r2": lambda y, guess, p: of.r2_score(y, guess),
        }
    ranked: dict[str, _Score] = {
        "f1_macro": lambda y, guess, p: of.f1_score(y, guess, average="macro"),
        "auroc": lambda y, guess, p: _each(of.roc_auc_score, y, p),
        "average_precision": lambda y, guess, p: _each(of.average_precision_score, y, p),
    }
    if link is Link.sigmoid:
        return ranked
    return {
        "accuracy": lambda y, guess, p: of.accuracy_score(y, guess),
        "balanced_accuracy": lambda y, guess, p: of.balanced_accuracy_score(y, guess),
        "f1_weighted": lambda y, guess, p: of.f1_score(y, guess, average="weighted"),
        "log_loss": lambda y, guess, p: of.log_loss(y, p, labels=range(p.shape[1])),
        "mcc": lambda y, guess, p: of.matthews_corrcoef(y, guess),
        **ranked,
    }


def _each(score: Callable[..., float], targets: np.ndarray, shares: np.ndarray) -> float:
    """Return the mean over the classes or questions that some rows have and others do not."""
    if targets.ndim == 1:
        targets = targets[:, None] == np.arange(shares.shape[1])
    both = [place for place in range(shares.shape[1]) if len(np.unique(targets[:, place])) == 2]
    if not both:
        return float("nan")
    if shares.shape[1] == 2 and len(both) == 2 and (targets.sum(axis=1) == 1).all():
        both = [1]  # of two classes, the second one is the positive one
    return float(np.mean([score(targets[:, place], shares[:, place]) for place in both]))
