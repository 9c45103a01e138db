"""Reads and writes a study's YAML file; reads the rows and seeds of the command line."""

from __future__ import annotations

import re
import shlex
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml  # type: ignore[import-untyped]
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from metaloss.errors import MetalossError, unknown_name
from metaloss.study.spec.spec import Block, Row, Study

# What a comparison's folder has of its study.
STUDY_FILE = "study.yaml"
SHIPPED = Path(__file__).parent.parent / "studies"
Words = Annotated[tuple[str, ...], "a list of KEY=VALUE words"]
Names = Annotated[tuple[str, ...], "a list of names"]
# More are a slip of the hand: each is a run of every row.
MOST_SEEDS = 10_000


@dataclass(frozen=True)
class _Row:
    words: Words = ()
    tune: Annotated[tuple[Words, ...], "lists of KEY=VALUE words"] = ()
    tuned_as: str = ""


@dataclass(frozen=True)
class _Block:
    words: Words = ()
    without: Names = ()


@dataclass(frozen=True)
class _Tuning:
    seeds: Any = ()
    folds: Annotated[int, "a whole number"] = 0
    equal: str = "settings"


@dataclass(frozen=True)
class _File:
    """The keys of a study's file. A note on a type is the text of the error for a wrong value."""

    aside: Names = ()
    blocks: Annotated[Mapping[str, _Block], "names with lists of words"] = field(
        default_factory=dict
    )
    common: Words = ()
    description: str = ""
    groups: Annotated[Mapping[str, Names], "labels with lists of blocks"] = field(
        default_factory=dict
    )
    reference: str = ""
    rows: Annotated[Mapping[str, _Row], "names with lists of words"] = field(default_factory=dict)
    seeds: Any = 0
    together: Annotated[int, "a whole number"] = 1
    tuning: Annotated[_Tuning, "for example seeds: 100-102"] = _Tuning()


def shipped_studies() -> list[str]:
    """Return the names of the studies that come with metaloss."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load_study(name_or_path: str | Path) -> Study:
    """Return a shipped study by name, or one from a YAML file.

    The file has ``rows`` and optionally ``blocks``, ``seeds``, ``common`` (a list of
    ``KEY=VALUE`` words), ``reference``, ``together``, ``description``, ``tuning`` (with
    ``seeds``, ``folds`` and ``equal``, see `Study`), ``groups`` (lists of blocks by label) and
    ``aside`` (a list of rows). A row is a list of words, or a mapping with ``words`` and ``tune``
    (lists of words) or ``tuned_as`` (a row's name); a block is a list of words, or a mapping with
    ``words`` and ``without`` (names of rows).

    Raises:
        MetalossError: If there is no such study, or the file is not a study.

    Example:
        >>> load_study("demo").seeds
        (0, 1, 2)
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = SHIPPED / f"{name_or_path}.yaml"
        if str(name_or_path) not in shipped_studies():
            raise MetalossError(
                f"{unknown_name('study', str(name_or_path), shipped_studies())}"
                "; or give the path of a .yaml file"
            )
    try:
        loaded = OmegaConf.load(path)
        # Not resolved, because the command line's grammar reads the words.
        values = OmegaConf.to_container(loaded) if isinstance(loaded, DictConfig) else None
    except OSError as error:
        raise MetalossError(f"cannot read the study {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, OmegaConfBaseException) as error:
        reason = re.sub(r"\s+", " ", str(error))
        raise MetalossError(f"study {path} is not plain YAML: {reason}") from error
    if not isinstance(values, dict):
        raise MetalossError(f"study {path}: expected {', '.join(vars(_File()))}")
    try:
        file: _File = _typed(_File, values)
    except MetalossError as error:
        raise MetalossError(f"study {path}: {error}") from error
    return Study(
        rows=tuple(
            Row(name=name, overrides=row.words, tune=row.tune, tuned_as=row.tuned_as or None)
            for name, row in file.rows.items()
        ),
        blocks=tuple(
            Block(name=name, overrides=block.words, without=block.without)
            for name, block in file.blocks.items()
        ),
        seeds=parse_seeds(file.seeds),
        common=file.common,
        reference=file.reference or None,
        together=file.together,
        description=file.description,
        tuning_seeds=parse_seeds(file.tuning.seeds),
        folds=file.tuning.folds,
        equal=file.tuning.equal,
        groups=file.groups,
        aside=file.aside,
    )


def _typed(hint: Any, value: Any, key: str = "") -> Any:
    """Convert plain data to the type of a hint; ``key`` is its dotted name.

    OmegaConf's typed merge accepts a mapping as a text, and its errors do not name keys in lists.
    """
    hint, expected = typing.get_args(hint) if hasattr(hint, "__metadata__") else (hint, "text")
    kind, args = typing.get_origin(hint) or hint, typing.get_args(hint)
    within = f"{key}." if key else ""
    if isinstance(hint, type) and is_dataclass(hint):
        hints = typing.get_type_hints(hint, include_extras=True)
        if "words" in hints and not isinstance(value, dict):
            value = {"words": value}
        if isinstance(value, dict):
            for name in value:
                if name not in hints:
                    raise unknown_name(f"key of {key}" if key else "key", name, hints)
            # A key without a value counts as missing.
            given = {name: item for name, item in value.items() if item is not None}
            return hint(**{n: _typed(hints[n], item, within + n) for n, item in given.items()})
    elif kind is Mapping and isinstance(value, dict):
        return {str(name): _typed(args[1], v, f"{within}{name}") for name, v in value.items()}
    elif kind is tuple and isinstance(value, list) and (value or args[0] is str):
        return tuple(_typed(args[0], v, f"{key}[{index}]") for index, v in enumerate(value))
    elif hint is Any or (isinstance(value, kind) and not isinstance(value, bool)):
        return value
    raise MetalossError(f"{key}={value}: expected {expected}")


def to_yaml(study: Study) -> str:
    """Return a study as YAML text that `load_study` reads back."""
    values: dict[str, Any] = {
        "description": study.description,
        "common": list(study.common),
        "seeds": list(study.seeds),
        "reference": study.reference,
        "rows": {
            row.name: _entry(row.overrides, tune=[*map(list, row.tune)], tuned_as=row.tuned_as)
            for row in study.rows
        },
    }
    more = {
        "together": study.together if study.together > 1 else None,
        "tuning": _tuning(study),
        "blocks": {
            block.name: _entry(block.overrides, without=list(block.without))
            for block in study.blocks
        },
        "groups": {label: list(names) for label, names in study.groups.items()},
        "aside": list(study.aside),
    }
    values |= {key: value for key, value in more.items() if value}
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _tuning(study: Study) -> dict[str, Any]:
    if not study.tuning_seeds:
        return {}
    more = {"folds": study.folds} if study.folds else {}
    equal = {"equal": study.equal} if study.equal != Study.equal else {}
    return {"seeds": list(study.tuning_seeds), **more, **equal}


def _entry(words: tuple[str, ...], **more: Any) -> list[str] | dict[str, Any]:
    more = {key: value for key, value in more.items() if value}
    return {"words": list(words), **more} if more else list(words)


def parse_seeds(text: str | int | Iterable[int | str]) -> tuple[int, ...]:
    """Return seeds from ``0-4``, ``0,2,5-7``, a number, or a list of these.

    Raises:
        MetalossError: If it cannot be read, a seed occurs twice, or there are more than 10,000.

    Example:
        >>> parse_seeds("0-2,7")
        (0, 1, 2, 7)
    """
    split = text.split(",") if isinstance(text, str) else text
    parts: Iterable[Any] = split if isinstance(split, Iterable) else [split]
    seeds: list[int] = []
    for part in parts:
        found = re.fullmatch(r"\s*(\d{1,18})\s*(?:-\s*(\d{1,18})\s*)?", str(part))
        if not found or (found[2] and int(found[2]) < int(found[1])):
            raise MetalossError(f"seeds {part!r}: expected a number or a range such as 0-4")
        more = range(int(found[1]), int(found[2] or found[1]) + 1)
        if len(seeds) + len(more) > MOST_SEEDS:
            raise MetalossError(f"seeds {part!r}: expected at most {MOST_SEEDS} seeds")
        seeds += more
    if len(set(seeds)) < len(seeds):
        raise MetalossError(f"seeds {text!r}: a seed occurs twice")
    return tuple(seeds)


def parse_row(text: str) -> Row:
    """Return a row from ``"name: KEY=VALUE KEY=VALUE"``; quotes as in a shell.

    Raises:
        MetalossError: If it cannot be read.

    Example:
        >>> parse_row("focal: loss=focal loss.gamma=3").overrides
        ('loss=focal', 'loss.gamma=3')
    """
    name, colon, words = text.partition(":")
    if not colon or "=" in name:
        raise MetalossError(f"row {text!r}: expected 'NAME: KEY=VALUE KEY=VALUE'")
    try:
        found = shlex.split(words)
    except ValueError as error:
        raise MetalossError(f"row {text!r}: {error}") from error
    return Row(name=name.strip(), overrides=tuple(found))
