"""What is measured: each case is a process of its own and returns plain numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from metaloss.compose import compose
from metaloss.contracts import Candidate
from metaloss.core.parts.setup import prepare
from metaloss.core.search.groups import evaluate_group, grouped
from metaloss.losses import MLPLoss
from metaloss.losses.taylor import Taylor

from . import ours, rivals
from .measure import Call, in_turns, peak_bytes, resident_bytes, wait
from .precision import precision
from .workloads import EVERY, Workload

__all__ = [
    "data",
    "flops",
    "long",
    "loss",
    "memory",
    "population",
    "precision",
    "seeds",
    "step",
    "total_memory",
    "unroll",
]

ONLINE = ("schedule=online", "compile=on")
# The meta-gradient is computed from a quarter of the rows of both batches.
QUARTER = ("meta_optimizer.rows=0.25", "schedule.judge_rows=0.25")
NEXT, LONG = "schedule.meta_batch=next", "schedule.unroll=10"
# By name: the words of a run.
OURS: dict[str, tuple[str, ...]] = {
    "online, eager": ("schedule=online", "compile=off"),
    "online, compiled": ONLINE,
    "online, compiled, a quarter of the rows": (*ONLINE, *QUARTER),
    "online, compiled, next": (*ONLINE, NEXT),
    "online, compiled, next, a quarter of the rows": (*ONLINE, *QUARTER, NEXT),
    "online, compiled, differences": (*ONLINE, "meta_optimizer=finite_difference"),
    "online, compiled, period 4": (*ONLINE, "schedule.period=4"),
    "online, compiled, unroll 10": (*ONLINE, LONG),
    "online, compiled, unroll 10, a quarter of the rows": (*ONLINE, *QUARTER, LONG),
    "plain, our core, compiled": ("schedule=static", "loss=cross_entropy", "compile=on"),
}
# How many calls are one round, and how many training steps it has, where it is not one of each.
CALLS = {"online, compiled, period 4": 4}
STEPS_OF = {name: 10 for name in OURS if "unroll 10" in name} | CALLS
PLAIN = "plain, compiled"
GRAPHS = "plain, compiled, CUDA graphs"
FEW = ("online, eager", "online, compiled", "online, compiled, a quarter of the rows")
FAR = tuple(name for name in OURS if "unroll 10" in name)


def device() -> torch.device:
    """Return where things are measured."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def variant(work: Workload, name: str) -> tuple[Call, int]:
    """Return a variant's call, warmed up, and how many of its calls are one round."""
    calls: dict[str, Callable[[], Call]] = {
        "plain, eager": lambda: rivals.plain(work, device(), compiled=False),
        PLAIN: lambda: rivals.plain(work, device(), compiled=True),
        GRAPHS: lambda: rivals.plain(work, device(), compiled=True, graphs=True),
        "higher": lambda: rivals.with_higher(work, device()),
        "torchopt": lambda: rivals.with_torchopt(work, device()),
    }
    if name in calls:
        call, repeat = calls[name](), 1
    else:
        call, repeat = ours.steps(work, *OURS[name]), CALLS.get(name, 1)
    for _ in range(max(3, 2 * repeat)):
        call()
    return call, repeat


def step(workload: str, names: list[str], rounds: int) -> dict[str, Any]:
    """Return the seconds of one training step of each variant."""
    work = EVERY[workload]
    found, every = {}, {name: variant(work, name) for name in names}

    def repeated(call: Call, count: int) -> Call:
        return lambda: [call() for _ in range(count)]

    calls = {name: repeated(*pair) for name, pair in every.items()}
    # A GPU is waited for at the end of a turn only, as between two lines of a journal.
    turn = 10 if torch.cuda.is_available() else 1
    for name, seconds in in_turns(calls, rounds=rounds, repeat=turn).items():
        steps = STEPS_OF.get(name, 1)
        found[name] = {k: v / steps for k, v in dataclasses.asdict(seconds).items()}
        if isinstance(run := every[name][0], ours.Steps):
            found[name]["compile"] = run.compile_seconds
    return found


def memory(workload: str, name: str) -> dict[str, int]:
    """Return the peak memory of a step of one variant: of the step, and of all its process."""
    imported = resident_bytes()
    call, _ = variant(EVERY[workload], name)
    between = resident_bytes() - imported
    step = peak_bytes(call)
    return {"step": step, "process": between + step}


def total_memory(workload: str, name: str) -> dict[str, int]:
    """Return what a variant ever took of a GPU's memory: in tensors, and from the driver."""
    call, _ = variant(EVERY[workload], name)
    for _ in range(5):
        call()
    wait()
    return {
        "tensors": torch.cuda.max_memory_allocated(),
        "driver": torch.cuda.max_memory_reserved(),
    }


def data(rows: int, batch: int, batches: int, rounds: int) -> dict[str, Any]:
    """Return the seconds of a batch of cropped and flipped pictures, resident and loaded."""
    calls = {
        "resident": ours.pictures(device(), rows, batch, batches),
        "resident, compiled": ours.pictures(device(), rows, batch, batches, compiled=True),
    }
    for workers in (0, 8):
        name = f"DataLoader, {workers} workers"
        calls[name] = rivals.pictures(device(), rows, batch, batches, workers)
    for call in calls.values():
        call()
    found = in_turns(calls, rounds=rounds)
    return {
        name: {key: value / batches for key, value in dataclasses.asdict(seconds).items()}
        for name, seconds in found.items()
    }


def unroll(workload: str, length: int, name: str, rounds: int, keep: str = "all") -> dict[str, Any]:
    """Return seconds and peak bytes of an unroll through many steps."""
    work = EVERY[workload]
    if name == "higher":
        call: Call = rivals.with_higher(work, device(), unroll=length)
    else:
        compiled = "off" if name == "eager" else "on"
        words = (f"compile={compiled}", f"meta_optimizer.checkpointing={keep}")
        words += QUARTER if name.endswith("a quarter of the rows") else ()
        call = ours.steps(work, "schedule=online", f"schedule.unroll={length}", *words)
    call()
    peak = peak_bytes(call, calls=1)
    seconds = in_turns({name: call}, rounds=rounds)[name]
    return {**dataclasses.asdict(seconds), "peak": peak}


def seeds(count: int, compiled: bool, rounds: int) -> dict[str, Any]:
    """Return the seconds of a step of ten seeds: each in turn, and all in one program."""
    words = ("schedule=online", f"compile={'on' if compiled else 'off'}")
    alone = [ours.digits([seed], *words) for seed in range(count)]
    if compiled:
        # One program is what ten runs of one process would share as well.
        for one in alone[1:]:
            one.advance = dataclasses.replace(one.advance, step=alone[0].advance.step)
    together = ours.digits(range(count), *words)
    calls: dict[str, Call] = {"in turn": lambda: [one() for one in alone], "together": together}
    for call in calls.values():
        for _ in range(3):
            call()
    found = in_turns(calls, rounds=rounds, repeat=5)
    return {name: dataclasses.asdict(seconds) for name, seconds in found.items()}


def loss(rows: int, classes: int, rounds: int, compiled: bool = True) -> dict[str, Any]:
    """Return the seconds of a loss and its two derivatives, against a loop over classes."""
    derivatives = partial(rivals.derivatives, rows=rows, classes=classes, device=device())
    calls = {"per class": derivatives(rivals.PerClass()), "at once": derivatives(MLPLoss())}
    if compiled:
        calls["compiled"] = derivatives(MLPLoss(), compiled=True)
    for call in calls.values():
        for _ in range(3):
            call()
    found = in_turns(calls, rounds=rounds)
    return {name: dataclasses.asdict(seconds) for name, seconds in found.items()}


def long(steps: int) -> dict[str, Any]:
    """Return what many online steps leave behind: programs, and memory over time."""
    run = ours.steps(EVERY["LeNet-5, batch 128"], *ONLINE)
    for _ in range(50):
        run()
    before = resident_bytes()
    for _ in range(steps):
        run()
    programs = len(run.setups[0].advance.step.whole.programs)  # type: ignore[attr-defined]
    return {"programs": programs, "grown": resident_bytes() - before}


def flops(workload: str) -> dict[str, Any]:
    """Return the operations of a step, in forward passes of the network."""
    work = EVERY[workload]
    # The traced graphs are counted as they are: what the compiler would be given.
    torch._inductor.compile = lambda graph, tensors, options: graph
    run = ours.steps(work, "schedule=static", "loss=cross_entropy", "compile=on")
    setup, inner = run.setups[0], run.state.inner
    batch, key = setup.advance.streams["train"][0], setup.advance.key("probe", 0)
    with torch.no_grad():
        one = _operations(
            lambda: setup.problem.predict(inner.params, inner.buffers, batch, key), None
        )
    found = {}
    for name, words in (
        ("plain", ("schedule=static", "loss=cross_entropy")),
        ("online", ("schedule=online",)),
        ("online, next", ("schedule=online", "schedule.meta_batch=next")),
        ("online, differences", ("schedule=online", "meta_optimizer=finite_difference")),
    ):
        run = ours.steps(work, *words, "compile=on")
        for _ in range(2):
            run()
        found[name] = _operations(run, one)
    return found


def _operations(call: Call, unit: float | None) -> float:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / (unit or 1.0)


def population(size: int, steps: int, rounds: int) -> dict[str, Any]:
    """Return the seconds of a generation of CMA-ES: its candidates in turn, and together."""
    words = ["tracker=[]", "task=digits", "loss=taylor", "schedule=offline"]
    search = ["meta_optimizer=cmaes", f"meta_optimizer.population={size}"]
    fitness = [f"meta_optimizer.fitness_steps={steps}", "meta_optimizer.fitness=task_loss"]
    setup = prepare(compose([*words, *search, *fitness, "meta_optimizer.early_end=0"]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        every = [Taylor(link="softmax") for _ in range(size)]
    candidates = [
        Candidate(phi={name: 1.2 * value.detach() for name, value in one.named_parameters()})
        for one in every
    ]
    fitnesses: dict[str, list[float]] = {}

    def judged(name: str, group: int) -> Call:
        def call() -> object:
            jobs = grouped(candidates, group)
            fitnesses[name] = [one.fitness for job in jobs for one in evaluate_group(setup, job)]
            return fitnesses[name]

        return call

    calls = {"in turn": judged("in turn", 1), "together": judged("together", size)}
    found = in_turns(calls, rounds=rounds)
    pairs = zip(fitnesses["in turn"], fitnesses["together"], strict=True)
    apart = max(abs(a - b) / abs(a) if a != b else 0.0 for a, b in pairs)
    return {
        **{name: dataclasses.asdict(seconds) for name, seconds in found.items()},
        "apart": apart,
    }
