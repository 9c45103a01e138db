"""What a comparison is asked to do: rows, seeds, and what they share; by hand or from a file."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from metaloss.errors import MetalossError, unknown_name

SHIPPED = Path(__file__).parent / "studies"
_KEYS = (
    "aside", "blocks", "common", "description", "groups", "reference", "rows", "seeds", "together",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: a name, and the ``KEY=VALUE`` words that make it what it is.

    Raises:
        MetalossError: If the name is empty, or a word is no ``KEY=VALUE`` or sets what the
            comparison itself decides.
    """

    name: str
    overrides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the name and the words."""
        if not self.slug:
            raise MetalossError(f"row {self.name!r}: expected a name with letters or digits")
        check_words(self.overrides, f"row {self.name!r}")

    @property
    def slug(self) -> str:
        """The name as a folder.

        Example:
            >>> Row(name="Learned, online").slug
            'learned-online'
        """
        return re.sub(r"[^\w.]+", "-", self.name.lower()).strip("-.")


@dataclass(frozen=True, kw_only=True)
class Study:
    """Rows to train and compare over the same seeds.

    Attributes:
        rows: The lines of the table, in order.
        seeds: Every row is trained with each; rows are paired by them.
        common: Words for every row; a row's own words win.
        reference: The row that the others are tested against; None: the first static one.
        description: One line for people: the picture's title.
        blocks: What all rows are trained on, one after the other, such as several tasks; each has
            a table and tests of its own. None: a single one, without a name.
        together: Seeds of a row that are trained as one vectorised program, where its parts allow.
        groups: Names of blocks by label: they are summarized on their own, beside all blocks.
        aside: Names of rows that are no rivals of the reference in the summary over blocks.

    Raises:
        MetalossError: If there are no rows or seeds, a name or folder occurs twice, the reference
            is no row, or a group or ``aside`` names what is not there.
    """

    rows: tuple[Row, ...]
    seeds: tuple[int, ...] = (0,)
    common: tuple[str, ...] = ()
    reference: str | None = None
    description: str = ""
    blocks: tuple[Row, ...] = ()
    together: int = 1
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    aside: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the whole."""
        if not self.rows:
            raise MetalossError('nothing to compare: give rows, such as --row "online: loss=mlp"')
        if not self.seeds:
            raise MetalossError("no seeds: expected for example --seeds 0-4")
        for what, rows in (("rows", self.rows), ("blocks", self.blocks)):
            names = [row.name for row in rows]
            slugs = [row.slug for row in rows]
            for index, name in enumerate(names):
                if name in names[:index] or slugs[index] in slugs[:index]:
                    raise MetalossError(f"two {what} are called {name!r} (folder {slugs[index]!r})")
        names = [row.name for row in self.rows]
        if self.reference is not None and self.reference not in names:
            raise unknown_name("reference row", self.reference, names)
        if not isinstance(self.together, int) or self.together < 1:
            raise MetalossError(f"together={self.together}: expected a number ≥ 1")
        check_words(self.common, "the common words")
        _check_names("aside: row", self.aside, self.rows)
        for label, blocks in self.groups.items():
            if label == "all" or not blocks:
                raise MetalossError(f"group {label!r}: expected blocks, and a label other than all")
            _check_names(f"group {label!r}: block", blocks, self.blocks)

    def of_block(self, block: Row) -> Study:
        """Return one block as a study of its own."""
        title = f"{self.description}: {block.name}" if self.description else block.name
        common = (*self.common, *block.overrides)
        return replace(self, blocks=(), groups={}, aside=(), common=common, description=title)

    def overrides(self, row: Row, seed: int) -> list[str]:
        """Return the words of one run; a later word on the same key replaces an earlier one.

        Runs are watched from here: they have no tracker of their own unless one is asked for.
        """
        words = ["tracker=[]", *self.common, *row.overrides, f"seed={seed}"]
        return list({word.partition("=")[0].lstrip("+"): word for word in words}.values())


def parse_seeds(text: str | int | Iterable[int | str]) -> tuple[int, ...]:
    """Return seeds from ``0-4``, ``0,2,5-7``, a number, or a list of these.

    Raises:
        MetalossError: If it cannot be read, or a seed occurs twice.

    Example:
        >>> parse_seeds("0-2,7")
        (0, 1, 2, 7)
    """
    parts = text.split(",") if isinstance(text, str) else [text] if isinstance(text, int) else text
    seeds: list[int] = []
    for part in parts:
        found = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", str(part))
        if not found or (found[2] and int(found[2]) < int(found[1])):
            raise MetalossError(f"seeds {part!r}: expected a number or a range such as 0-4")
        seeds += range(int(found[1]), int(found[2] or found[1]) + 1)
    if len(set(seeds)) < len(seeds):
        raise MetalossError(f"seeds {text!r}: a seed occurs twice")
    return tuple(seeds)


def parse_row(text: str) -> Row:
    """Return a row from ``"name: KEY=VALUE KEY=VALUE"``; quotes as in a shell.

    Raises:
        MetalossError: If it cannot be read.

    Example:
        >>> parse_row("focal: loss=focal loss.gamma=3")
        Row(name='focal', overrides=('loss=focal', 'loss.gamma=3'))
    """
    name, colon, words = text.partition(":")
    if not colon or "=" in name:
        raise MetalossError(f"row {text!r}: expected 'NAME: KEY=VALUE KEY=VALUE'")
    try:
        return Row(name=name.strip(), overrides=tuple(shlex.split(words)))
    except ValueError as error:
        if isinstance(error, MetalossError):
            raise
        raise MetalossError(f"row {text!r}: {error}") from error


def shipped_studies() -> list[str]:
    """Return the names of the studies that come with metaloss."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load_study(name_or_path: str | Path) -> Study:
    """Return a shipped study by name, or one from a YAML file.

    The file holds ``rows`` (name → list of ``KEY=VALUE`` words) and, if wanted, ``blocks`` (the
    same), ``groups`` (label → list of blocks), ``seeds``, ``common`` (a list of words),
    ``reference``, ``aside`` (a list of rows), ``together`` and ``description``.

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
    if study.groups:
        values["groups"] = {label: list(names) for label, names in study.groups.items()}
    if study.aside:
        values["aside"] = list(study.aside)
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def check_words(words: Iterable[str], where: str) -> None:
    """Raise unless every word is ``KEY=VALUE`` with a key that a row may set."""
    for word in words:
        key, equals, _ = word.partition("=")
        if not equals or not key.strip():
            raise MetalossError(f"{where}: cannot read {word!r}: expected KEY=VALUE")
        if key.strip() in ("seed", "output"):
            raise MetalossError(f"{where}: {word!r}: the comparison itself sets {key.strip()}")


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
        groups=_groups(path, values.get("groups")),
        aside=_words(path, "aside", values.get("aside"), of="row names"),
    )


def _groups(path: Path, groups: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(groups, dict | None):
        raise MetalossError(f"study {path}: groups={groups}: expected labels with lists of blocks")
    return {
        str(label): _words(path, f"groups.{label}", names, of="block names")
        for label, names in (groups or {}).items()
    }


def _check_names(what: str, names: Sequence[str], rows: Sequence[Row]) -> None:
    """Raise unless every name is that of a row (or block), and occurs once."""
    known = [row.name for row in rows]
    for index, name in enumerate(names):
        if name not in known:
            raise unknown_name(what, name, known)
        if name in names[:index]:
            raise MetalossError(f"{what} {name!r} occurs twice")


def _rows(path: Path, key: str, rows: Any) -> tuple[Row, ...]:
    if not isinstance(rows, dict):
        raise MetalossError(f"study {path}: {key}={rows}: expected names with lists of words")
    return tuple(
        Row(name=str(name), overrides=_words(path, f"{key}.{name}", words))
        for name, words in rows.items()
    )


def _words(path: Path, key: str, words: Any, *, of: str = "KEY=VALUE words") -> tuple[str, ...]:
    if words is None:
        return ()
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise MetalossError(f"study {path}: {key}={words}: expected a list of {of}")
    return tuple(words)
