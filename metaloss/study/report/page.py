"""A page of HTML in one file: sections with charts, tables and texts, and no network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from string import Template
from typing import Any, Protocol

import pandas as pd

from metaloss.errors import MetalossError

# Colours that keep a contrast of 3 on white and on the dark page, for colour-blind eyes too.
COLORS = ("#1f83c2", "#d9641a", "#159a73", "#c2659b", "#a67c00", "#8a76cf", "#6f7f92")


class Block(Protocol):
    """A part of a section."""

    def html(self, name: str) -> str:
        """Return the part as HTML; ``name`` is unique on the page."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart drawn by Plotly: hover, zoom, a legend that hides lines.

    Attributes:
        title: Its heading; also what screen readers say.
        traces: Plotly's traces.
        layout: What differs from the page's common layout.
        height: In pixels.
    """

    title: str
    traces: Sequence[dict[str, Any]]
    layout: dict[str, Any] = field(default_factory=dict)
    height: int = 320

    def html(self, name: str) -> str:
        """Return it as HTML; see `Block`."""
        content = {"traces": [_without_tags(one) for one in self.traces], "layout": self.layout}
        return (
            f'<figure class="chart"><figcaption>{escape(self.title)}</figcaption>'
            f'<div id="{name}" class="plot" style="height:{self.height}px" role="img" '
            f'aria-label="{escape(self.title)}"></div>{_data(name, content)}</figure>'
        )


@dataclass(frozen=True, kw_only=True)
class Slider:
    """Charts of which a slider shows one moment.

    Attributes:
        label: What the slider moves through, such as ``training step``.
        moments: The number of each moment, shown beside the slider.
        charts: Their traces have, for each moment, a list ``moments`` of y values. Traces without
            it do not move.
    """

    label: str
    moments: Sequence[float]
    charts: Sequence[Chart]

    def html(self, name: str) -> str:
        """Return it as HTML; see `Block`."""
        last = len(self.moments) - 1
        charts = "".join(chart.html(f"{name}-{i}") for i, chart in enumerate(self.charts))
        return (
            f'<div class="slider" data-moments="{escape(json.dumps(list(self.moments)))}">'
            f'<label for="{name}">{escape(self.label)} <output for="{name}"></output></label>'
            f'<input type="range" id="{name}" min="0" max="{last}" value="{last}" step="1">'
            f'<div class="pair">{charts}</div></div>'
        )


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table whose columns sort and whose rows can be filtered.

    Attributes:
        frame: Its cells are texts or numbers.
        note: A line below it.
        digits: The decimals of a column's numbers, by its name; others are shown as they are.
        bold: The value of the first column whose row stands out.
    """

    frame: pd.DataFrame
    note: str = ""
    digits: Mapping[str, int] = field(default_factory=dict)
    bold: str | None = None

    def html(self, name: str) -> str:
        """Return it as HTML; see `Block`."""
        heads = "".join(
            f'<th{" class=number" if self._has_numbers(column) else ""} aria-sort="none">'
            f'<button type="button">{escape(str(column))}</button></th>'
            for column in self.frame.columns
        )
        rows = "".join(self._row(list(row)) for row in self.frame.to_numpy(dtype=object))
        note = f'<p class="note">{escape(self.note)}</p>' if self.note else ""
        find = (
            f'<label class="find" for="{name}">Show rows with '
            f'<input id="{name}" type="search" autocomplete="off"></label>'
            if len(self.frame) > 8
            else ""
        )
        return (
            f'<div class="sortable">{find}<div class="wide" tabindex="0" role="region" '
            f'aria-label="table"><table><thead><tr>{heads}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div>{note}</div>"
        )

    def _has_numbers(self, column: str) -> bool:
        return any('"number"' in self._cell(cell, column) for cell in self.frame[column].head(1))

    def _row(self, cells: Sequence[Any]) -> str:
        return (
            f"<tr{' class=bold' if self.bold is not None and cells[0] == self.bold else ''}>"
            + "".join(map(self._cell, cells, self.frame.columns))
            + "</tr>"
        )

    def _cell(self, cell: Any, column: str) -> str:
        if isinstance(cell, int | float) and not isinstance(cell, bool):
            if cell != cell:
                return '<td class="number" data-value="NaN">–</td>'
            digits = self.digits.get(column)
            text = f"{cell:g}" if digits is None else f"{cell:.{digits}f}"
            return f'<td class="number" data-value="{cell!r}">{text}</td>'
        return f"<td>{escape('–' if cell is None else str(cell))}</td>"


@dataclass(frozen=True, kw_only=True)
class Chooser:
    """Several blocks of which one is shown, chosen by name."""

    label: str
    blocks: dict[str, Sequence[Block]]

    def html(self, name: str) -> str:
        """Return it as HTML; see `Block`."""
        options = "".join(
            f'<option value="{i}">{escape(n)}</option>' for i, n in enumerate(self.blocks)
        )
        parts = "".join(
            f'<div class="choice"{" hidden" if i else ""}>'
            + "".join(one.html(f"{name}-{i}-{j}") for j, one in enumerate(blocks))
            + "</div>"
            for i, blocks in enumerate(self.blocks.values())
        )
        return (
            f'<div class="chooser"><label for="{name}">{escape(self.label)} '
            f'<select id="{name}">{options}</select></label>{parts}</div>'
        )


@dataclass(frozen=True, kw_only=True)
class Words:
    """A paragraph, or a list of facts: a name and a value each."""

    text: str = ""
    facts: dict[str, str] = field(default_factory=dict)

    def html(self, name: str) -> str:
        """Return it as HTML; see `Block`."""
        text = f"<p>{escape(self.text)}</p>" if self.text else ""
        pairs = "".join(
            f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>"
            for key, value in self.facts.items()
        )
        return text + (f'<dl id="{name}" class="facts">{pairs}</dl>' if pairs else "")


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Small pictures in a grid: each a PNG as bytes, with the lines below it."""

    shown: Sequence[tuple[bytes, str]]

    def html(self, name: str) -> str:
        """Return it as HTML; see `Block`."""
        from base64 import b64encode

        tiles = "".join(
            f'<figure><img alt="{escape(below)}" src="data:image/png;base64,'
            f'{b64encode(png).decode()}"><figcaption>{escape(below)}</figcaption></figure>'
            for png, below in self.shown
        )
        return f'<div id="{name}" class="tiles">{tiles}</div>'


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading and what is below it."""

    title: str
    blocks: Sequence[Block]
    wide: bool = True


def to_html(title: str, sections: Sequence[Section]) -> str:
    """Return the page, with its style, its program and Plotly in it.

    Raises:
        MetalossError: If Plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise MetalossError(
            "metaloss report needs Plotly: pip install 'metaloss[report]'"
        ) from error
    here = files("metaloss.study.report")
    body, contents = [], []
    for number, section in enumerate(sections):
        contents.append(f'<a href="#s{number}">{escape(section.title)}</a>')
        parts = "".join(b.html(f"b{number}-{index}") for index, b in enumerate(section.blocks))
        layout = "" if section.wide else ' class="grid"'
        body.append(
            f'<section id="s{number}"><h2>{escape(section.title)}</h2>'
            f"<div{layout}>{parts}</div></section>"
        )
    return Template(here.joinpath("page.html").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        style=here.joinpath("page.css").read_text(encoding="utf-8"),
        contents="".join(contents),
        body="".join(body),
        colors=json.dumps(COLORS),
        plotly=get_plotlyjs(),
        program=here.joinpath("page.js").read_text(encoding="utf-8"),
    )


def _data(name: str, content: Any) -> str:
    # A name in a user's file must not end the element.
    text = json.dumps(_plain(content), allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" data-for="{name}">{text}</script>'


def _without_tags(trace: dict[str, Any]) -> dict[str, Any]:
    """Return a trace whose names are drawn as they are: Plotly takes <b> and &lt; for HTML."""

    def drawn(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [drawn(one) for one in value]
        return escape(value, quote=False) if isinstance(value, str) else value

    names = ("x", "y", "name", "text")
    return {key: drawn(value) if key in names else value for key, value in trace.items()}


def _plain(value: Any) -> Any:
    """Return a value as JSON allows it: None for numbers that are not finite."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float):
        return float(f"{value:.6g}") if abs(value) < float("inf") else None
    return value
