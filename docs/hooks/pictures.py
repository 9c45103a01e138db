"""Draws pictures of the pages from the numbers in `docs`: ``python -m docs.hooks.pictures``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from metaloss.study.plots import style
from metaloss.study.plots.reading_plot import plot_readings

DOCS = Path(__file__).parents[1]
# What a block is about, by a word in its name, and its colour.
KINDS = {"wrong labels": style.BLUE, "long tail": style.VERMILION, "clean": style.GREEN}
# Blocks that had a part in the choice of `auto`.
CHOSEN_ON = (
    "mnist1d, CNN, 20 % wrong",
    "mnist1d, CNN, 50 % wrong",
    "letter, MLP, clean",
    "letter, MLP, 30 % wrong",
)


def main() -> None:
    """Draw all of them."""
    for path in (*readings(DOCS / "results"), auto(DOCS / "results"), steps(DOCS / "benchmarks")):
        print(path)


def readings(folder: Path) -> list[Path]:
    """Draw what the losses of three blocks of the study ask for, one picture each."""
    found = pd.read_csv(folder / "embedded_learned.csv")
    names = ("digits_mlp_50", "digits_mlp_tail", "mnist1d_cnn_50")
    blocks = found.groupby("block", sort=False)
    return [
        plot_readings(block, folder / f"embedded_{name}.png", rows=found["row"].unique())
        for name, (_, block) in zip(names, blocks, strict=True)
    ]


def kind(block: str) -> str:
    """Return what a block is about."""
    return next((name for name in ("long tail", "clean") if name in block), "wrong labels")


def auto(folder: Path) -> Path:
    """Draw the errors of the rivals of `auto` relative to its own, a dot for each block."""
    means = pd.read_csv(folder / "auto.csv").pivot(index="block", columns="row", values="mean")
    ratios = means.drop(columns=["auto", "first choice"]).div(means["auto"], axis=0)
    rivals = np.exp(np.log(ratios.drop(index=list(CHOSEN_ON))).mean()).sort_values().index
    with style.styled():
        figure = style.new_figure(9, 4.1)
        style.heading(
            figure,
            "The test error of each rival ÷ that of auto",
            "A dot is a setting; right of the line auto has the lower error",
            style.FAINT,
        )
        axes = figure.add_axes((0.22, 0.12, 0.75, 0.62))
        axes.axvline(1, color=style.INK, linewidth=1.2, zorder=2)
        for place, rival in enumerate(rivals):
            for number, name in enumerate(KINDS):
                some = ratios[rival][[kind(block) == name for block in ratios.index]]
                chosen = some.index.isin(CHOSEN_ON)
                for dots, face in ((some[~chosen], KINDS[name]), (some[chosen], "white")):
                    _dots(axes, dots, place + 0.22 * (number - 1), KINDS[name], face)
        axes.set_yticks(range(len(rivals)), rivals, fontsize=9, color=style.INK)
        axes.set_ylim(len(rivals) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        _ratios(axes, [0.5, 0.7, 1, 1.5, 2, 3])
        marks = [*KINDS.items(), ("had a part in the choice of auto", "white")]
        for text, face in marks:
            edge = style.FAINT if face == "white" else face
            axes.scatter([], [], s=26, color=face, edgecolors=edge, label=text)
        where = {"loc": "lower left", "bbox_to_anchor": (-0.01, 1.01)}
        figure.axes[0].legend(ncols=4, fontsize=8, frameon=False, handletextpad=0.2, **where)
        return style.save(figure, folder / "auto.png")


def _dots(axes: Axes, values: Sequence[float], place: float, edge: str, face: str) -> None:
    axes.scatter(
        values, [place] * len(values), s=26, color=face, edgecolors=edge, alpha=0.85, zorder=3
    )


def _ratios(axes: Axes, ticks: Sequence[float]) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} ×"))


def costs(page: str) -> dict[str, dict[str, float]]:
    """Return what steps cost ÷ a plain compiled step, by network, from the page on CPUs."""
    found: dict[str, dict[str, float]] = {}
    for section in page.partition("## Operations")[0].split("\n### ")[1:]:
        name, _, text = section.partition("\n")
        rows = [
            [c.strip() for c in line.split("|")] for line in text.splitlines() if " × |" in line
        ]
        found[name] = {row[1]: float(row[4].removesuffix(" ×")) for row in rows}
    return found


def steps(folder: Path) -> Path:
    """Draw what an online step costs on a CPU, beside a plain step and the libraries."""
    found = costs((folder / "cpu.md").read_text("utf-8"))
    with style.styled():
        figure = style.new_figure(9, 3.9)
        style.heading(
            figure,
            "What a training step costs on two CPU cores",
            "time ÷ that of a plain step, compiled",
            style.FAINT,
        )
        axes = figure.add_axes((0.26, 0.1, 0.71, 0.63))
        for place, step in enumerate(found.values()):
            _network(axes, place, step)
        names = [_short(name) for name in found]
        axes.set_yticks(range(len(names)), names, fontsize=9, color=style.INK)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.set_xlim(0.9, 9)
        _ratios(axes, [1, 1.5, 2, 3, 4, 6, 8])
        where = {"loc": "lower left", "bbox_to_anchor": (-0.01, 1.01)}
        axes.legend(ncols=4, fontsize=8, frameon=False, handletextpad=0.2, **where)
        return style.save(figure, folder / "steps.png")


def _network(axes: Axes, place: int, step: Mapping[str, float]) -> None:
    dots = {
        "plain": (1.0, style.INK),
        "online, a quarter of the rows": (
            step["online, compiled, a quarter of the rows"],
            style.SKY,
        ),
        "online": (step["online, compiled"], style.BLUE),
        "the faster library": (min(step["higher"], step["torchopt"]), style.VERMILION),
    }
    axes.plot([1, dots["the faster library"][0]], [place] * 2, color=style.GRID, linewidth=2)
    for name, (value, color) in dots.items():
        axes.scatter([value], [place], s=46, color=color, zorder=3, label=None if place else name)
        axes.annotate(
            f"{value:.1f}", (value, place), (0, 7), textcoords="offset points", ha="center",
            fontsize=7.5, color=color,
        )  # fmt: skip


def _short(name: str) -> str:
    """Return a network's name without its sizes.

    Example:
        >>> _short("ResNet-18, width 16, GroupNorm, 32×32, batch 64")
        'ResNet-18, GroupNorm'
    """
    kept = [part for part in name.split(", ") if part == "GroupNorm"]
    return ", ".join([name.split(",")[0].removesuffix(" 3072-1000-10"), *kept])


if __name__ == "__main__":
    main()
