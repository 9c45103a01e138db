"""The jury's verdicts: which of two networks is better, on rows that moved neither."""

from __future__ import annotations

import torch
from torch import Tensor

from metaloss.contracts import Task
from metaloss.core.parts.jury import each
from metaloss.core.parts.setup import Setup
from metaloss.core.steps.state import TrainState
from metaloss.core.training.best import Best, candidates, in_journal
from metaloss.core.training.evaluate import evaluate, outputs_of
from metaloss.inner.model.functional import FunctionalModel
from metaloss.types import InnerState

# How many standard errors make a difference: to prefer an earlier moment, and to change the run.
CHOOSES, ACTS = 1.0, 1.645


def measured(setup: Setup, state: TrainState) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Return the metrics of the weights that a run may end with, and those of the jury's rows.

    The metrics have the names of the journal. The rows are by the kind of weights, each (J,).
    """
    task, model = setup.task, setup.problem.model
    splits = {"valid": task.valid, "test": task.test}
    splits |= {"jury": task.jury} if task.jury else {}
    found: dict[str, Tensor] = {}
    rows: dict[str, Tensor] = {}
    for weights, inner in candidates(state).items():
        found |= in_journal(weights, evaluate(model, inner, task, splits))
        if task.jury:
            rows[weights] = by_row(model, inner, task)
    values = torch.stack([value.double() for value in found.values()])
    # Early stopping, the guard and the jury decide by them.
    values, rows = setup.problem.broadcast((values, rows))
    return dict(zip(found, values.tolist(), strict=True)), rows


def goes_back(setup: Setup, best: Best, last: Tensor | None) -> bool:
    """Return whether a run ends with its best moment; ``last``: the jury's rows at the end."""
    if setup.schedule.early_stopping or best.rows is None or last is None:
        return setup.schedule.early_stopping > 0
    return standard_errors(last, best.rows, setup.task.goal) > CHOOSES


@torch.no_grad()
def by_row(model: FunctionalModel, inner: InnerState, task: Task) -> Tensor:
    """Return the task's metric of each row of the jury alone, (J,) in double precision.

    NaN for a row that does not count, such as one whose targets are all ignored.
    """
    assert task.jury is not None
    outputs = outputs_of(model, inner, task.jury.inputs)
    return each(task.metric, outputs, task.jury.targets.to(outputs.device)).double()


def standard_errors(worse: Tensor, better: Tensor, goal: str) -> float:
    """Return by how many standard errors one network is worse than another on the same rows.

    It is Σ dᵢ / √Σ dᵢ² for the paired differences dᵢ: their mean over its standard error if both
    are equally good. For wrong classes this is McNemar's (b − c) / √(b + c), where b rows are wrong
    for the first network alone and c for the second alone. 0 if nothing differs.

    Reference:
        McNemar, "Note on the sampling error of the difference between correlated proportions or
        percentages", Psychometrika 12, 1947.

    Args:
        worse: (J,) metrics by row.
        better: (J,) likewise.
        goal: ``"min"`` or ``"max"``.

    Example:
        >>> worse, better = torch.tensor([1.0, 1.0, 1.0, 0.0]), torch.tensor([0.0, 0.0, 1.0, 0.0])
        >>> round(standard_errors(worse, better, "min"), 3)
        1.414
    """
    gap = (worse - better).double().nan_to_num() * (1 if goal == "min" else -1)
    size = gap.norm().item()
    return gap.sum().item() / size if size else 0.0
