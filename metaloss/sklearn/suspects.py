"""How doubtful the label of each row is, in the order of the rows that the user gave."""

from __future__ import annotations

import numpy as np

from metaloss.contracts import Task
from metaloss.core.runs.results import Run
from metaloss.core.runs.suspects import trains_on_trusted_alone
from metaloss.core.storage.run_folder import LEDGER

_NUMBERS = ("score", "p", "error", "wrong", "last", "visits")


def suspects_in_order(
    run: Run, task: Task, numbers: np.ndarray, places: np.ndarray
) -> dict[str, np.ndarray] | None:
    """Return the columns of `Run.suspects` for the user's rows (n,), in float64.

    Args:
        run: A finished run.
        task: Its task.
        numbers: (N,) the number of each training row. Rows with one number are equal.
        places: (n,) the number of each of the user's rows.

    Returns:
        Arrays (n,) by name, with NaN for rows that did not train the network; ``suggested`` is a
        class index or a value. None if the run has no ledger of these rows.
    """
    if not (run.folder / LEDGER).is_file() or trains_on_trusted_alone(run.folder):
        return None
    table = run.suspects(task=task)
    kept = table[[name for name in _NUMBERS if name in table]].astype(float)
    kept["suggested"] = table["suggested"].astype(float)
    merged = kept.groupby(numbers[table.index.to_numpy()]).mean().reindex(places)
    return {str(name): merged[name].to_numpy() for name in merged}
