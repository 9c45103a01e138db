"""What was measured, as a page."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from importlib.metadata import version
from itertools import product
from typing import Any

import pandas as pd
import torch

from metaloss.study.tables.render import to_markdown

PACKAGES = ("torch", "higher", "torchopt")


def machine() -> dict[str, str]:
    """Return where and with what things are measured."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    return {
        "device": device,
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def stamp() -> str:
    """Return at which commit and when something is measured."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    return f"{commit}, {date.today().isoformat()}"


def page(found: Mapping[str, Any]) -> str:
    """Return the tables in Markdown."""
    parts = ["Measured on " + ", ".join(f"{k} {v}" for k, v in found["machine"].items()) + "."]
    parts += _stamps(found)
    for name, value in found.items():
        kind, _, rest = name.partition("/")
        if kind == "step":
            parts += [f"### {rest}", _steps(value) if value else "not measured: it failed"]
    parts += [
        "### Peak memory of a step, MB",
        _memory(found),
        "### What a run takes of a GPU's memory, MB",
        _total(found),
        "### An unroll of 20 steps, ResNet-18",
        _unroll(found),
        "### Unrolls out of all their states, and out of √K of them",
        _states(found),
        "### Other measurements",
        _rest(found),
        "### The meta-gradient's distance from double precision's",
        _precision(found),
        "### Operations of a step, in forward passes of the network",
        _flops(found),
    ]
    return "\n\n".join(parts) + "\n"


def _stamps(found: Mapping[str, Any]) -> list[str]:
    """Return a line for each commit: cases that were measured apart are not of one table's."""
    cases: dict[str, list[str]] = {}
    for name, one in found.get("stamps", {}).items():
        cases.setdefault(one, []).append(name)
    told = {"machine", "stamps", *found.get("stamps", {})}
    lines = [f"At {one}: {'; '.join(names)}." for one, names in cases.items()]
    older = [name for name in found if name not in told]
    return [*lines, f"At a commit that was not noted: {'; '.join(older)}."] if older else lines


def _steps(seconds: Mapping[str, Mapping[str, float]]) -> str:
    plain = seconds["plain, compiled"]["median"]
    library = min(seconds["higher"]["median"], seconds["torchopt"]["median"])
    digits = 1 if plain > 1e-2 else 2
    rows = [
        [
            name,
            f"{1e3 * one['median']:.{digits}f}",
            _spread(one, 1e3, digits),
            f"{one['median'] / plain:.2f} ×",
            f"{one['median'] / library:.2f} ×",
        ]
        for name, one in seconds.items()
    ]
    head = ["a training step", "ms", "quartiles", "÷ plain, compiled", "÷ the faster library"]
    return _table(head, rows)


def _memory(found: Mapping[str, Any]) -> str:
    rows = []
    for work, variant, one in _by_work(found, "memory", failed=True):
        if not isinstance(one, Mapping):
            rows.append([variant, "not measured"])
            continue
        row = [variant, *(_number(one[which], 1e6) for which in ("step", "process"))]
        base = found.get(f"memory/{work}/plain, compiled")
        rows.append(row + _against(one, base, ("step", "process")))
    between, imports = "above what lies there between two", "above the interpreter's after import"
    ratios = ["÷ plain", "÷ plain, above import"]
    return _table(["a training step", between, imports, *ratios], rows)


def _total(found: Mapping[str, Any]) -> str:
    rows = []
    for work, variant, one in _by_work(found, "total"):
        row = [work, variant, *(_number(one[which], 1e6) for which in ("tensors", "driver"))]
        base = found.get(f"total/{work}/plain, compiled")
        rows.append(row + _against(one, base, ("tensors", "driver")))
    head = ["", "a training step", "in tensors", "reserved"]
    head += ["in tensors ÷ plain", "reserved ÷ plain"]
    return _table(head, rows) if rows else "not measured"


def _unroll(found: Mapping[str, Any]) -> str:
    base = found.get("unroll/higher")
    rows = []
    for name in ("higher", "compiled", "compiled, a quarter of the rows", "eager"):
        one = found.get(f"unroll/{name}")
        if not one:
            rows.append([name, "not measured"])
            continue
        row = [name, f"{one['median']:.2f}", _spread(one, 1, 2), f"{one['peak'] / 1e6:.0f}"]
        rows.append(row + _against(one, base, ("median", "peak")))
    head = ["", "seconds", "quartiles", "MB", "time ÷ higher", "memory ÷ higher"]
    return _table(head, rows)


def _states(found: Mapping[str, Any]) -> str:
    rows = []
    for work, keep, one in _by_work(found, "states"):
        row = [work, keep, f"{one['median']:.2f}", f"{one['peak'] / 1e6:.0f}"]
        rows.append(row + _against(one, found.get(f"states/{work}/all"), ("median", "peak")))
    if not rows:
        return "not measured"
    return _table(["", "checkpointing", "seconds", "MB", "time ÷ all", "memory ÷ all"], rows)


def _by_work(
    found: Mapping[str, Any], kind: str, *, failed: bool = False
) -> Iterator[tuple[str, str, Any]]:
    """Yield the workload, the variant and what was found of one kind of case."""
    for name, one in found.items():
        begins, _, rest = name.partition("/")
        if begins == kind and (one or failed):
            work, _, variant = rest.rpartition("/")
            yield work, variant, one


def _against(one: Mapping[str, float], base: Any, keys: Sequence[str]) -> list[str]:
    return [f"{one[key] / base[key]:.2f} ×" for key in keys] if base else []


def _rest(found: Mapping[str, Any]) -> str:
    rows = []
    for name, title, slow, fast in (
        ("loss", "a loss and its two derivatives, 128 × 100", "per class", "at once"),
        ("loss", "the same, as it is in a compiled step", "per class", "compiled"),
        ("seeds/compiled", "ten seeds of the digits MLP, compiled", "in turn", "together"),
        ("seeds/eager", "ten seeds of the digits MLP, eager", "in turn", "together"),
        ("population", "25 Taylor losses × 100 steps of the digits MLP", "in turn", "together"),
    ):
        one = found.get(name)
        if not one:
            rows.append([title, "not measured"])
            continue
        times = [one[which]["median"] for which in (slow, fast)]
        shown = [
            f"{1e3 * one[which]['median']:.1f} ms ({_spread(one[which], 1e3, 1)})"
            for which in (slow, fast)
        ]
        rows.append([title, f"{slow}: {shown[0]}", f"{fast}: {shown[1]}", _ratio(times)])
    if one := found.get("data"):
        loaders = [name for name in one if name.startswith("DataLoader")]
        for slow, fast in product(loaders, [name for name in one if name not in loaders]):
            times = [one[which]["median"] for which in (slow, fast)]
            shown = [f"{1e3 * seconds:.2f} ms" for seconds in times]
            row = [f"{slow}: {shown[0]}", f"{fast}: {shown[1]}", _ratio(times)]
            rows.append(["128 pictures of 32×32, cropped and flipped", *row])
    if one := found.get("population"):
        rows.append(
            [
                "its fitness, largest relative difference",
                f"{one['apart']:.1e}" if one["apart"] else "0",
                "–",
                "–",
            ]
        )
    if one := found.get("long"):
        grown = f"memory grown by {one['grown'] / 1e6:.1f} MB"
        rows.append(["500 online steps", f"{one['programs']} program", grown, "–"])
    return _table(["", "", "", "faster by"], rows)


def _precision(found: Mapping[str, Any]) -> str:
    rows, kinds = [], []
    for name, moments in found.items():
        kind, _, rest = name.partition("/")
        if kind != "precision" or not moments:
            continue
        for moment, numbers in moments.items():
            kinds = list(numbers)
            shown = (
                f"{value:.1e}" if which.endswith("error") else f"{value:.4f}"
                for which, value in numbers.items()
            )
            rows.append([rest, moment, *shown])
    return _table(["", "", *kinds], rows) if rows else "not measured"


def _flops(found: Mapping[str, Any]) -> str:
    names = [name for name in found if name.startswith("flops/") and found[name]]
    if not names:
        return "not measured"
    kinds = list(found[names[0]])
    rows = [[n.partition("/")[2], *(f"{found[n][kind]:.2f}" for kind in kinds)] for n in names]
    return _table(["", *kinds], rows)


def _spread(one: Mapping[str, float], unit: float, digits: int) -> str:
    """Return the quartiles, ``unit`` of them a second."""
    return f"{unit * one['low']:.{digits}f} – {unit * one['high']:.{digits}f}"


def _ratio(times: Sequence[float]) -> str:
    return f"{times[0] / times[1]:.1f} ×"


def _number(value: float | None, unit: float) -> str:
    return "not measured" if value is None else f"{value / unit:.0f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    full = [[*row, *[""] * (len(head) - len(row))] for row in rows]
    return to_markdown(pd.DataFrame(full, columns=list(head)))


def _processor() -> str:
    with open("/proc/cpuinfo") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()} ({os.cpu_count()} cores)"
