"""A group of candidates to evaluate, as plain data for any process."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from metaloss.allocator import keep_freed_memory
from metaloss.compose import compose
from metaloss.config import Compile, Selected
from metaloss.contracts import Candidate
from metaloss.core.parts.setup import Setup, build_loss, prepare
from metaloss.core.search.population import Evaluated, evaluate
from metaloss.losses.base import LearnedLoss, phi_of
from metaloss.types import Tensors

# Candidates that are trained together: the options of each, and its φ if it has one.
Group = tuple[tuple[Mapping[str, Any], Tensors | None], ...]


def grouped(candidates: Sequence[Candidate], size: int) -> list[Group]:
    """Return the groups of a generation. They depend only on the order of the candidates."""
    plain = [(dict(one.options), one.phi) for one in candidates]
    return [tuple(plain[at : at + size]) for at in range(0, len(plain), size)]


def evaluate_group(setup: Setup, group: Group) -> list[Evaluated]:
    """Return the result of each candidate of a group."""
    assert setup.search is not None
    losses = [candidate_loss(setup, options) for options, _ in group]
    phis = [
        phi_of(loss) if phi is None else phi for loss, (_, phi) in zip(losses, group, strict=True)
    ]
    phis = [{name: value.to(setup.device) for name, value in phi.items()} for phi in phis]
    with _one_thread(setup.device):
        evaluated = evaluate(setup, setup.search, losses, phis)
    return [replace(one, phi={k: v.cpu() for k, v in one.phi.items()}) for one in evaluated]


def evaluate_elsewhere(config: str, group: Group) -> list[Evaluated]:
    """Return the result of each candidate, in a process that only has the config.

    ``config``: the result of `to_dict` as JSON.
    """
    keep_freed_memory()
    return evaluate_group(_setup_of(config), group)


def candidate_loss(setup: Setup, options: Mapping[str, Any]) -> LearnedLoss:
    """Return the loss of the run with some options changed."""
    if not options:
        return setup.loss
    chosen = setup.config.loss
    changed = Selected(name=chosen.name, options=replace(chosen.options, **options))
    return build_loss(changed, setup.task, setup.config.seed).to(setup.device)


@functools.lru_cache(maxsize=1)
def _setup_of(config: str) -> Setup:
    # Candidates are trained without compilation, so that a worker needs no compiler.
    return prepare(replace(compose([], json.loads(config)), tracker={}, compile=Compile.off))


@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    # One thread, as in a worker, because sums on several threads are rounded differently.
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
