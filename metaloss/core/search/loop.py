"""The offline phase of a search: generations of candidates. The best one trains the model."""

from __future__ import annotations

import copy
import csv
import io
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from metaloss.compose import to_dict
from metaloss.contracts import Candidate, Search
from metaloss.core.parts.setup import Setup
from metaloss.core.search.groups import candidate_loss, grouped
from metaloss.core.search.population import Evaluated, local_engine, no_better_than_constant
from metaloss.core.search.workers import Workers, executor_options, open_workers
from metaloss.core.storage import checkpoint
from metaloss.core.storage.files import write_atomically
from metaloss.core.training.interrupt import Interrupt
from metaloss.core.training.recorder import Recorder
from metaloss.errors import MetalossError
from metaloss.inner.model.write_back import write_back

FILE = "search.csv"
COLUMNS = ("generation", "index", "fitness", "status", "why", "loss")
_FOLDER = "search"


@dataclass(kw_only=True)
class History:
    """The state of a search: its results so far, its table, the best candidate and the first loss.

    ``first`` is the loss that the search began with, evaluated as its candidates are. It is None if
    its parameters have no values before the search.
    """

    told: list[list[float]] = field(default_factory=list)
    rows: list[list[Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None
    first: dict[str, Any] | None = None
    lost: int = 0


def load(folder: Path, device: torch.device) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the newest checkpoint of a run's search, and messages on damaged ones."""
    return checkpoint.load_newest(folder / _FOLDER, device)


def check_search(setup: Setup) -> None:
    """Raise if the search of a run is not possible, before anything is written.

    Raises:
        MetalossError: If the search refuses the loss, its engine does not fit, or other processes
            could not make the same run.
    """
    rule, config = setup.search, setup.config
    if rule is None:
        return
    rule.search(setup.loss, setup.task.task_loss, setup.task.outputs, config.seed)
    if rule.local_steps:
        local_engine(rule)
    if rule.workers != "1" and "custom" in (config.task.name, config.model.name, config.loss.name):
        raise MetalossError(
            f"meta_optimizer.workers={rule.workers}: a task, model or loss of your own cannot be "
            "sent to other processes: register it, or use workers=1"
        )
    executor_options(rule)


def find_loss(
    setup: Setup, recorder: Recorder, interrupt: Interrupt, saved: Mapping[str, Any] | None
) -> Setup:
    """Run a search, or resume it from ``saved``; return the setup with the loss that was found.

    The folder gets ``search.csv``. Ctrl-C is noticed between groups of candidates.

    Raises:
        MetalossError: If no candidate could be trained.
    """
    rule = setup.search
    assert rule is not None
    history = _history(saved)
    search = rule.search(setup.loss, setup.task.task_loss, setup.task.outputs, setup.config.seed)
    for fitness in history.told:
        search.ask()
        search.tell(list(fitness))
    if len(history.told) < rule.generations:
        with open_workers(setup, json.dumps(to_dict(setup.config))) as workers:
            lost_before = history.lost
            if setup.loss.given and not history.told:
                _begin(setup, workers, history, interrupt, recorder.folder)
            while len(history.told) < rule.generations:
                _generation(setup, search, workers, history, interrupt, recorder.folder)
                history.lost = lost_before + workers.lost
                _record(recorder, history)
    best = _chosen(setup, history)
    if best is None:
        raise MetalossError(
            f"the search found no loss that trains a model: of {len(history.rows)} candidates none "
            f"has a finite fitness; see {recorder.folder / FILE}"
        )
    return _with_found(setup, history, best)


def _begin(
    setup: Setup, workers: Workers, history: History, interrupt: Interrupt, folder: Path
) -> None:
    """Evaluate the first loss in the same way as the candidates, which must be better."""
    hint = f"the search had just begun; begin again with metaloss train --resume {folder}"
    ((result,),) = workers.evaluate(grouped([Candidate()], 1), lambda: interrupt.check(hint))
    history.first = {
        "fitness": result.fitness,
        "generation": -1,
        "index": 0,
        "options": {},
        "phi": result.phi,
        "text": str(getattr(setup.config.loss.options, "expression", setup.config.loss.name)),
    }


def _chosen(setup: Setup, history: History) -> dict[str, Any] | None:
    """Return the best loss, if it is better than the first one and a constant; else the first."""
    assert setup.search is not None
    best, first = history.best, history.first
    if first is None or not math.isfinite(first["fitness"]):
        return best
    if best is None or not best["fitness"] < first["fitness"]:
        return first
    # Among losses that are not better than a constant prediction, the best one is random.
    return first if no_better_than_constant(setup, best["fitness"]) else best


def _generation(
    setup: Setup,
    search: Search,
    workers: Workers,
    history: History,
    interrupt: Interrupt,
    folder: Path,
) -> None:
    """Evaluate one generation, and give the results to the search."""
    assert setup.search is not None
    number = len(history.told)
    hint = f"generation {number} was not finished; continue with metaloss train --resume {folder}"
    candidates = search.ask()
    new = [one for one in candidates if one.rejected is None and one.known is None]
    jobs = grouped(new, setup.search.group)
    evaluated = iter(
        one for results in workers.evaluate(jobs, lambda: interrupt.check(hint)) for one in results
    )
    fitness = []
    for index, candidate in enumerate(candidates):
        result = next(evaluated) if candidate.rejected is None and candidate.known is None else None
        value = _fitness(candidate, result)
        fitness.append(value)
        history.rows.append(_row(number, index, candidate, result, value))
        best = math.inf if history.best is None else history.best["fitness"]
        if result is not None and value < best:
            history.best = {
                "fitness": value,
                "generation": number,
                "index": index,
                "options": dict(candidate.options),
                "phi": result.phi,
                "text": candidate.text,
            }
    search.tell(list(fitness))
    history.told.append(fitness)


def _fitness(candidate: Candidate, result: Evaluated | None) -> float:
    if result is not None:
        return result.fitness
    return math.inf if candidate.known is None else candidate.known


def _row(
    generation: int, index: int, candidate: Candidate, result: Evaluated | None, fitness: float
) -> list[Any]:
    why = candidate.rejected or (result.ended if result else None) or ""
    if candidate.rejected is not None:
        status = "rejected"
    elif result is None:
        status = "known"
    else:
        status = "ended early" if result.ended else "trained"
    return [generation, index, float(f"{fitness:.7g}"), status, why, candidate.text]


def _record(recorder: Recorder, history: History) -> None:
    """Write the table, a journal line and the checkpoint, in this order."""
    done = len(history.told)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([COLUMNS, *history.rows])
    write_atomically(recorder.folder / FILE, text.getvalue().encode())
    finite = [value for value in history.told[-1] if math.isfinite(value)]
    numbers: dict[str, float] = {}
    if history.best is not None:
        numbers["search/fitness"] = history.best["fitness"]
    if finite:
        numbers["search/mean_fitness"] = sum(finite) / len(finite)
    counts = Counter(row[3] for row in history.rows)
    numbers["search/rejected"] = float(counts["rejected"])
    numbers["search/lost_workers"] = float(history.lost)
    recorder.log(done, "offline", done, numbers)
    recorder.table(done, "search", COLUMNS, history.rows)
    checkpoint.save(
        recorder.folder / _FOLDER,
        done,
        {
            "told": history.told,
            "rows": history.rows,
            "best": history.best,
            "first": history.first,
            "lost": history.lost,
            "seconds": recorder.seconds(),
            "warnings": recorder.warnings,
            "files": recorder.positions(),
        },
    )


def _history(saved: Mapping[str, Any] | None) -> History:
    if saved is None:
        return History()
    known = {field.name for field in fields(History)} & saved.keys()
    return History(**{name: saved[name] for name in known})


def _with_found(setup: Setup, history: History, best: dict[str, Any]) -> Setup:
    """Return the setup with the best loss instead of the first one."""
    loss = copy.deepcopy(candidate_loss(setup, best["options"]))
    write_back(loss, best["phi"], {})
    problem = replace(setup.problem, loss=loss)
    step = setup.advance.step.on(problem)
    counts: Counter[str] = Counter(row[3] for row in history.rows)
    found = {
        "fitness": best["fitness"],
        "generation": best["generation"],
        "index": best["index"],
        "loss": best["text"],
        **({"began_with": history.first["fitness"]} if history.first else {}),
        "candidates": len(history.rows),
        **{status.replace(" ", "_"): count for status, count in sorted(counts.items())},
        "lost_workers": history.lost,
    }
    return replace(
        setup,
        loss=loss,
        problem=problem,
        advance=replace(setup.advance, step=step),
        found=found,
    )
