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
from metaloss.study.spec import Row, Study, parse_seeds

SHIPPED = Path(__file__).parent / "studies"
_KEYS = ("blocks", "common", "description", "reference", "rows", "seeds", "together")


def shipped_studies() -> list[str]:
    """Return the names of the studies that come with metaloss."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load_study(name_or_path: str | Path) -> Study:
    """Return a shipped study by name, or one from a YAML file.

    The file holds ``rows`` (name → list of ``KEY=VALUE`` words) and, if wanted, ``blocks`` (the
    same), ``seeds``, ``common`` (a list of words), ``reference``, ``together`` and ``description``.

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
        "rows": {row.name: list(row.overrides) for row in study.rows},
    }
    if study.together > 1:
        values["together"] = study.together
    if study.blocks:
        values["blocks"] = {block.name: list(block.overrides) for block in study.blocks}
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _study(path: Path, values: Mapping[str, Any]) -> Study:
    for key in values:
        if key not in _KEYS:
            raise unknown_name(f"key in study {path}", key, _KEYS)
    reference = values.get("reference")
    return Study(
        rows=_rows(path, "rows", values.get("rows")),
        blocks=_rows(path, "blocks", values.get("blocks", {})),
        seeds=parse_seeds(values.get("seeds", 0)),
        common=_words(path, "common", values.get("common")),
        reference=None if reference is None else str(reference),
        together=values.get("together", 1),
        description=str(values.get("description") or ""),
    )


def _rows(path: Path, key: str, rows: Any) -> tuple[Row, ...]:
    if not isinstance(rows, dict):
        raise MetalossError(f"study {path}: {key}={rows}: expected names with lists of words")
    return tuple(
        Row(name=str(name), overrides=_words(path, f"{key}.{name}", words))
        for name, words in rows.items()
    )


def _words(path: Path, key: str, words: Any) -> tuple[str, ...]:
    if words is None:
        return ()
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise MetalossError(f"study {path}: {key}={words}: expected a list of KEY=VALUE words")
    return tuple(words)
