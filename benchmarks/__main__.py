"""``python -m benchmarks [CASE ...]``: measures, and writes what was found as JSON.

Every case is a process of its own: what one leaves in memory is not the next one's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from metaloss.allocator import keep_freed_memory

from . import cases, report
from .precision import NETWORKS
from .workloads import LARGE, WORKLOADS

RESNET, GROUPED, LENET, MLP, TRANSFORMER = WORKLOADS
RIVALS = ["plain, eager", cases.PLAIN, "higher", "torchopt"]
STEPS = [*RIVALS, *cases.OURS]
SOME = [*RIVALS, *cases.FEW]
UNROLLS = ("higher", "compiled", "compiled, a quarter of the rows", "eager")


def plan() -> Iterator[tuple[str, str, list[Any]]]:
    """Yield (name, function, arguments) of every case, the telling ones first."""
    return on_gpu() if torch.cuda.is_available() else on_cpu()


def on_cpu() -> Iterator[tuple[str, str, list[Any]]]:
    """Yield what is measured where there is no GPU."""
    yield "step/" + RESNET, "step", [RESNET, STEPS, 15]
    for name in (cases.PLAIN, *cases.FEW, "higher", "torchopt"):
        yield f"memory/{RESNET}/{name}", "memory", [RESNET, name]
    for name in UNROLLS:
        yield f"unroll/{name}", "unroll", [RESNET, 20, name, 3]
    for workload, length in ((RESNET, 20), (MLP, 50)):
        for keep in ("all", "sqrt"):
            case = [workload, length, "eager", 1, keep]
            yield f"states/{workload}, unroll of {length}/{keep}", "unroll", case
    for workload, names in ((LENET, [*SOME, *cases.FAR]), (MLP, SOME), (TRANSFORMER, SOME)):
        yield "step/" + workload, "step", [workload, names, 25]
    yield "step/" + GROUPED, "step", [GROUPED, SOME, 15]
    yield from anywhere()
    yield "population", "population", [25, 100, 3]
    for workload in WORKLOADS:
        yield "flops/" + workload, "flops", [workload]


def on_gpu() -> Iterator[tuple[str, str, list[Any]]]:
    """Yield what is measured on a GPU."""
    for workload in LARGE:
        if "WRN" not in workload:
            yield "step/" + workload, "step", [workload, [cases.GRAPHS, *STEPS], 15]
    for workload in LARGE:
        if "WRN" in workload:
            for name in (cases.PLAIN, "online, compiled", "online, eager"):
                yield f"total/{workload}/{name}", "total_memory", [workload, name]
    yield "data", "data", [50_000, 128, 60, 3]
    for workload in (MLP, TRANSFORMER):
        yield "step/" + workload, "step", [workload, [cases.GRAPHS, *SOME], 15]
    yield from anywhere()
    for name in UNROLLS:
        yield f"unroll/{name}", "unroll", [RESNET, 20, name, 3]


def anywhere() -> Iterator[tuple[str, str, list[Any]]]:
    """Yield what is measured with a GPU and without one."""
    yield "loss", "loss", [128, 100, 15]
    yield "seeds/compiled", "seeds", [10, True, 15]
    yield "seeds/eager", "seeds", [10, False, 15]
    yield "long", "long", [500]
    for network in NETWORKS:
        yield "precision/" + network, "precision", [network, 200, 5]


def main() -> int:
    """Measure what was asked for, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", help="cases that begin so; default: all")
    parser.add_argument("--out", type=Path, default=Path("bench.json"))
    parser.add_argument("--page", type=Path, help="write the tables in Markdown here as well")
    parser.add_argument(
        "--keep-memory",
        action="store_true",
        help="freed memory stays with the process, as in `metaloss train`; here for rivals too",
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        if given.keep_memory:
            keep_freed_memory()
        function, arguments = json.loads(given.one)
        print(json.dumps(getattr(cases, function)(*arguments)))
        return 0
    found = json.loads(given.out.read_text()) if given.out.exists() else {}
    found["machine"] = report.machine()
    stamps = found.setdefault("stamps", {})
    for name, function, arguments in plan():
        if given.names and not any(name.startswith(wanted) for wanted in given.names):
            continue
        print(f"{name} ...", file=sys.stderr, flush=True)
        keep = ["--keep-memory"] if given.keep_memory else []
        words = [sys.executable, "-m", "benchmarks", *keep, "--one"]
        result = subprocess.run(
            [*words, json.dumps([function, arguments])], stdout=subprocess.PIPE, text=True
        )
        if result.returncode:
            found[name] = None
            print(f"{name} failed", file=sys.stderr)
        else:
            found[name] = json.loads(result.stdout.splitlines()[-1])
        stamps[name] = report.stamp() + ", freed memory kept" * given.keep_memory
        given.out.write_text(json.dumps(found, indent=1))
    print(text := report.page(found))
    if given.page:
        given.page.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
