"""A study's YAML file: read and written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from metaloss.errors import MetalossError, unknown_name
from metaloss.study.spec.spec import Block, Row, Study, parse_seeds

SHIPPED = Path(__file__).parent.parent / "studies"
_KEYS = (
    "aside", "blocks", "common", "description", "groups", "reference", "rows", "seeds", "together",
    "tuning",
)  # fmt: skip


def shipped_studies() -> list[str]:
    """Return the names of the studies that come with metaloss."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load_study(name_or_path: str | Path) -> Study:
    """Return a shipped study by name, or one from a YAML file.

    The file holds ``rows`` and, if wanted, ``blocks``, ``seeds``, ``common`` (a list of
    ``KEY=VALUE`` words), ``reference``, ``together``, ``description``, ``tuning`` (with
    ``seeds``), ``groups`` (lists of blocks by label) and ``aside`` (a list of rows). A row is a
    list of words, or a mapping with ``words`` and ``tune`` (lists of words) or ``tuned_as`` (a
    row's name); a block is a list of words, or a mapping with ``words`` and ``without`` (names of
    rows).

    Raises:
        MetalossError: If there is no such study, or the file does not hold one.

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
        # Unresolved: words go to the command line's grammar as they are.
        values = OmegaConf.to_container(loaded) if isinstance(loaded, DictConfig) else None
    except OSError as error:
        raise MetalossError(f"cannot read the study {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, OmegaConfBaseException) as error:
        reason = re.sub(r"\s+", " ", str(error))
        raise MetalossError(f"study {path} is no plain YAML: {reason}") from error
    if not isinstance(values, dict):
        raise MetalossError(f"study {path}: expected {', '.join(_KEYS)}")
    return _study(path, {str(key): value for key, value in values.items()})


def to_yaml(study: Study) -> str:
    """Return a study as YAML text that `load_study` reads back."""
    values: dict[str, Any] = {
        "description": study.description,
        "common": list(study.common),
        "seeds": list(study.seeds),
        "reference": study.reference,
        "rows": {row.name: _row_values(row) for row in study.rows},
    }
    if study.together > 1:
        values["together"] = study.together
    if study.tuning_seeds:
        values["tuning"] = {"seeds": list(study.tuning_seeds)}
    if study.blocks:
        values["blocks"] = {block.name: _block_values(block) for block in study.blocks}
    if study.groups:
        values["groups"] = {label: list(names) for label, names in study.groups.items()}
    if study.aside:
        values["aside"] = list(study.aside)
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _row_values(row: Row) -> list[str] | dict[str, Any]:
    words = list(row.overrides)
    if row.tune:
        return {"words": words, "tune": [list(setting) for setting in row.tune]}
    return words if row.tuned_as is None else {"words": words, "tuned_as": row.tuned_as}


def _block_values(block: Block) -> list[str] | dict[str, Any]:
    words = list(block.overrides)
    return {"words": words, "without": list(block.without)} if block.without else words


def _study(path: Path, values: Mapping[str, Any]) -> Study:
    for key in values:
        if key not in _KEYS:
            raise unknown_name(f"key in study {path}", key, _KEYS)
    reference = values.get("reference")
    rows = _entries(path, "rows", values.get("rows"), ("words", "tune", "tuned_as"))
    blocks = _entries(path, "blocks", values.get("blocks", {}), ("words", "without"))
    return Study(
        rows=tuple(_row(path, name, entry) for name, entry in rows.items()),
        blocks=tuple(
            Block(
                name=name,
                overrides=_words(path, f"blocks.{name}", entry.get("words")),
                without=_words(path, f"blocks.{name}.without", entry.get("without"), "rows' names"),
            )
            for name, entry in blocks.items()
        ),
        seeds=parse_seeds(values.get("seeds", 0)),
        common=_words(path, "common", values.get("common")),
        reference=None if reference is None else str(reference),
        together=values.get("together", 1),
        description=str(values.get("description") or ""),
        tuning_seeds=_tuning_seeds(path, values.get("tuning")),
        groups=_groups(path, values.get("groups")),
        aside=_words(path, "aside", values.get("aside"), "rows' names"),
    )


def _row(path: Path, name: str, entry: Mapping[str, Any]) -> Row:
    where, settings = f"rows.{name}", entry.get("tune")
    if "tune" in entry and (not isinstance(settings, list) or not settings):
        raise MetalossError(f"study {path}: {where}.tune={settings}: expected lists of words")
    tuned_as = entry.get("tuned_as")
    return Row(
        name=name,
        overrides=_words(path, where, entry.get("words")),
        tune=tuple(
            _words(path, f"{where}.tune[{index}]", words)
            for index, words in enumerate(settings or ())
        ),
        tuned_as=None if tuned_as is None else str(tuned_as),
    )


def _entries(path: Path, key: str, named: Any, keys: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Return rows or blocks by name, those given as a list of words as mappings too."""
    if not isinstance(named, dict):
        raise MetalossError(f"study {path}: {key}={named}: expected names with lists of words")
    found = {}
    for name, entry in named.items():
        values = entry if isinstance(entry, dict) else {"words": entry}
        for given in values:
            if given not in keys:
                raise unknown_name(f"key of {key}.{name} in study {path}", str(given), keys)
        found[str(name)] = values
    return found


def _tuning_seeds(path: Path, tuning: Any) -> tuple[int, ...]:
    if tuning is None:
        return ()
    if not isinstance(tuning, dict) or set(tuning) != {"seeds"}:
        raise MetalossError(f"study {path}: tuning={tuning}: expected for example seeds: 100-102")
    return parse_seeds(tuning["seeds"])


def _groups(path: Path, groups: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(groups, dict | None):
        raise MetalossError(f"study {path}: groups={groups}: expected labels with lists of blocks")
    return {
        str(label): _words(path, f"groups.{label}", names, "blocks' names")
        for label, names in (groups or {}).items()
    }


def _words(path: Path, key: str, words: Any, expected: str = "KEY=VALUE words") -> tuple[str, ...]:
    if words is None:
        return ()
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise MetalossError(f"study {path}: {key}={words}: expected a list of {expected}")
    return tuple(words)
