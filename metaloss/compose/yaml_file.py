"""Reading and writing of a run's ``config.yaml``, as plain data."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

import yaml  # type: ignore[import-untyped]

from metaloss.config import RunConfig, Selected, Settings
from metaloss.errors import MetalossError, unknown_name
from metaloss.registry import GROUPS

MAX_BYTES = 1_000_000


def to_dict(config: RunConfig) -> dict[str, Any]:
    """Return a configuration as plain data, the content of ``config.yaml``.

    Each group is a mapping with the part's ``name`` and its options. ``tracker`` has a mapping of
    options for each chosen tracker. Enum members are written by name.
    """
    plain: dict[str, Any] = {}
    for group in GROUPS:
        chosen = getattr(config, group)
        if isinstance(chosen, Selected):
            plain[group] = {"name": chosen.name, **_plain(chosen.options)}
        else:
            plain[group] = {name: _plain(options) for name, options in chosen.items()}
    for setting in dataclasses.fields(Settings):
        plain[setting.name] = _plain(getattr(config, setting.name))
    return plain


def to_yaml(config: RunConfig) -> str:
    """Return a configuration as YAML text, which `metaloss.compose.compose` reads back."""
    # In ASCII, because PyYAML does not read back all line breaks of Unicode.
    return yaml.dump(to_dict(config), Dumper=_PlainDumper, sort_keys=False)


def read_file(path: Path) -> dict[str, Any]:
    """Read a configuration file of plain YAML data.

    Anchors, tags, interpolations and duplicate keys are refused; ``on`` and ``off`` are text. If
    ``output`` is the file's own folder, it is left out, so that a new run gets a new folder.

    Raises:
        MetalossError: If the file cannot be read, is larger than ``MAX_BYTES``, is not a mapping,
            or has an unknown key at its top level.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise MetalossError(f"cannot read the config {path}: {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        raise MetalossError(f"config {path}: expected at most {MAX_BYTES} bytes")
    try:
        values = yaml.load(raw.decode(), Loader=_PlainLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise MetalossError(f"config {path} is not plain YAML: {_one_line(error)}") from error
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise MetalossError(f"config {path} is a {type(values).__name__}: expected KEY: VALUE")
    known = [*GROUPS, *(setting.name for setting in dataclasses.fields(Settings))]
    for key in values:
        if key not in known:
            raise unknown_name(f"key in {path}", key, known)
    _refuse_lookups(values, str(path), "")
    output = values.get("output")
    if isinstance(output, str) and Path(output).resolve() == path.resolve().parent:
        del values["output"]
    return values


def chosen_name(chosen: Any) -> Any:
    """Return the name of a part in a config file, which has it alone or with options."""
    return chosen.get("name") if isinstance(chosen, dict) else chosen


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _refuse_lookups(value: Any, where: str, key: str) -> None:
    if isinstance(value, str):
        if "${" in value:
            raise MetalossError(f"{where}: {key}={value!r}: interpolations are not allowed")
        if value == "???":
            raise MetalossError(f"{where}: {key}='???': expected a value")
    elif isinstance(value, dict):
        for name, item in value.items():
            _refuse_lookups(item, where, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for item in value:
            _refuse_lookups(item, where, key)


def _one_line(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error)).strip()


class _PlainLoader(yaml.SafeLoader):
    """PyYAML's safe loader with the plain scalars of YAML 1.2.

    In YAML 1.1, ``on`` is a boolean, ``1e-3`` is text and ``2024-01-01`` is a date.
    """

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.YAMLError(f"line {mark.line + 1}: aliases (*name) are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                raise yaml.YAMLError(f"line {line}: expected plain text as a key")
            if key.value in seen:
                raise yaml.YAMLError(f"line {line}: the key {key.value!r} occurs twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


class _PlainDumper(yaml.SafeDumper):
    """Puts quotes around text that YAML 1.1 or 1.2 would read as another type."""


for _kind, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL", "~nN"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("null", "", ("",)),
):
    for _side in (_PlainLoader, _PlainDumper):
        _side.add_implicit_resolver(
            f"tag:yaml.org,2002:{_kind}", re.compile(rf"^(?:{_pattern})\Z"), list(_first)
        )
