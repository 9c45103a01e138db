"""The tables of ``metaloss list``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from metaloss import registry
from metaloss.compose.added import ADDED
from metaloss.compose.explain import as_written, option_types
from metaloss.compose.presets import Preset
from metaloss.config import Settings
from metaloss.errors import MetalossError, unknown_name
from metaloss.registry import GROUPS, Part

_OURS = "metaloss"
# Below this width the tables have two columns.
NARROW = 110


def overview(width: int) -> Iterator[Group]:
    """Yield a table of the parts of each group, then of the presets and the rows of the paper."""
    kinds: dict[str, list[tuple[str, str, str | Text]]] = {}
    for group in GROUPS:
        parts = ((name, _load(group, name)) for name in registry.names(group))
        kinds[group] = [
            (name, part.source, _plain(part.summary))
            if isinstance(part, Part)
            else (name, "", _failure(part))
            for name, part in parts
        ]
    for kind, added in ADDED.items():
        kinds[f"+{kind}"] = [(name, _OURS, preset.description) for name, preset in added.items()]
    if width >= NARROW:
        table = _table(("group", "name", "from", "what it is"))
        for kind, rows in kinds.items():
            for row in rows:
                table.add_row(kind, *row)
            table.add_section()
        yield Group(table)
        return
    # All tables have one width, so that the eye finds the second column.
    longest = max(len(name) for rows in kinds.values() for name, _, _ in rows)
    for kind, rows in kinds.items():
        table = _table(("name", "what it is"))
        table.columns[0].width = longest
        for name, source, what in rows:
            ours = not source or source.startswith(f"{_OURS} ") or source == _OURS
            table.add_row(name, what if ours else f"{what} ({source})")
        yield _titled(kind, table)


def details(group: str, width: int) -> Iterator[Group]:
    """Yield one table for each part of a group, with its options.

    Raises:
        MetalossError: If there is no such group.
    """
    if group == "settings":
        yield _options(
            "settings: keys that belong to no part, such as steps=4000", Settings, "", width
        )
    elif group in ADDED:
        for name, preset in ADDED[group].items():
            yield _added(group, name, preset)
    elif group in GROUPS:
        for name in registry.names(group):
            part = _load(group, name)
            if isinstance(part, Part):
                title = f"{group}={name} ({part.source})\n{_plain(part.summary)}"
                prefix = f"tracker.{name}." if group == "tracker" else f"{group}."
                yield _options(title, part.config_class, prefix, width)
            else:
                table = _table(("failed to load",))
                table.add_row(_failure(part))
                yield _titled(f"{group}={name}", table)
    else:
        raise unknown_name("group", group, [*GROUPS, *ADDED, "settings"])


def _failure(reason: MetalossError) -> Text:
    return Text(str(reason), style="red")


def _load(group: str, name: str) -> Part | MetalossError:
    try:
        return registry.get(group, name)
    except MetalossError as reason:
        return reason


def _options(title: str, options: type, prefix: str, width: int) -> Group:
    wide = width >= NARROW
    table = _table(
        ("option", "default", "type", "what it does") if wide else ("option", "what it does")
    )
    types = option_types(options)
    for option in dataclasses.fields(options):
        name, default = prefix + option.name, _default(option)
        kind, text = types.get(option.name, ""), _plain(option.metadata.get("help", ""))
        if wide:
            table.add_row(name, default, kind, text)
        else:
            table.add_row(name, f"{text}\n{kind}; default {default}")
    if not table.row_count:
        table.add_row("no options")
    return _titled(title, table)


def _added(kind: str, name: str, preset: Preset) -> Group:
    values = {
        **preset.choices,
        **{
            f"{group}.{option}": value
            for group, options in preset.options.items()
            for option, value in options.items()
        },
        **preset.settings,
    }
    table = _table(("key", "value", *(["source"] if preset.known else [])))
    for key, value in values.items():
        table.add_row(key, as_written(value), *([preset.known[key]] if preset.known else []))
    return _titled(f"+{kind}={name}\n{preset.description}", table)


def _plain(docstring: str) -> str:
    return docstring.replace("``", "")


def _default(option: dataclasses.Field[Any]) -> str:
    if option.default is not dataclasses.MISSING:
        return as_written(option.default)
    if option.default_factory is not dataclasses.MISSING:
        return as_written(option.default_factory())
    return "(required)"


def _table(columns: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        # Names are not folded in a narrow terminal, so that they can be copied.
        whole = column in ("group", "name", "option", "key")
        table.add_column(column, overflow="fold", no_wrap=whole)
    return table


def _titled(title: str, table: Table) -> Group:
    # Not the title of the table, which would be folded to the table's width.
    return Group(Text(title), table)
