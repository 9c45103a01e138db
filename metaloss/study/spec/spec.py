"""What a comparison is asked to do: rows, seeds, and what they share."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from metaloss.errors import MetalossError, unknown_name
from metaloss.study.spec.rules import (
    check_aside,
    check_groups,
    check_tuning,
    check_without,
    check_words,
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: a name, and the ``KEY=VALUE`` words that make it what it is.

    Attributes:
        name: What people read.
        overrides: Its words.
        tune: Settings, each a tuple of further words; in every block the one with the best
            validation metric is added to the row's words.
        tuned_as: The row whose chosen setting this one takes; None: none.

    Raises:
        MetalossError: If the name is empty, a word is no ``KEY=VALUE`` or sets what the
            comparison itself decides, or both ``tune`` and ``tuned_as`` are given.
    """

    name: str
    overrides: tuple[str, ...] = ()
    tune: tuple[tuple[str, ...], ...] = ()
    tuned_as: str | None = None

    def __post_init__(self) -> None:
        """Check the name and the words."""
        where = f"row {self.name!r}"
        if not self.slug:
            raise MetalossError(f"{where}: expected a name with letters or digits")
        check_words(self.overrides, where)
        for index, words in enumerate(self.tune):
            check_words(words, f"{where}, setting {index}")
        if self.tune and self.tuned_as is not None:
            raise MetalossError(f"{where}: has both tune and tuned_as: expected one of them")

    @property
    def slug(self) -> str:
        """The name as a folder.

        Example:
            >>> Row(name="Learned, online").slug
            'learned-online'
        """
        return slug(self.name)


@dataclass(frozen=True, kw_only=True)
class Block:
    """What the rows are trained on for one table, such as a task: a name and common words.

    Attributes:
        name: What people read.
        overrides: Words for every row; they win over the study's, and a row's own over them.
        without: Names of rows that do not exist in this block.

    Raises:
        MetalossError: If the name is empty, or a word is no ``KEY=VALUE`` or sets what the
            comparison itself decides.
    """

    name: str
    overrides: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the name and the words."""
        if not self.slug:
            raise MetalossError(f"block {self.name!r}: expected a name with letters or digits")
        check_words(self.overrides, f"block {self.name!r}")

    @property
    def slug(self) -> str:
        """The name as a folder."""
        return slug(self.name)


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
        tuning_seeds: Seeds, none of them in ``seeds``, over which rows with ``tune`` are tuned.
        groups: Names of blocks by label: they are summarized on their own, beside all blocks.
        aside: Names of rows that are no rivals of the reference, such as its ablations: the tests
            of rivals are not corrected for them, and the summary over blocks leaves them out.

    Raises:
        MetalossError: If there are no rows or seeds, a name or folder occurs twice, the reference
            is no row, a group or ``aside`` names what is not there, or what is said about tuning
            cannot be done or would be unequal.
    """

    rows: tuple[Row, ...]
    seeds: tuple[int, ...] = (0,)
    common: tuple[str, ...] = ()
    reference: str | None = None
    description: str = ""
    blocks: tuple[Block, ...] = ()
    together: int = 1
    tuning_seeds: tuple[int, ...] = ()
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    aside: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the whole."""
        if not self.rows:
            raise MetalossError('nothing to compare: give rows, such as --row "online: loss=mlp"')
        if not self.seeds:
            raise MetalossError("no seeds: expected for example --seeds 0-4")
        _check_names("rows", self.rows)
        _check_names("blocks", self.blocks)
        names = [row.name for row in self.rows]
        if self.reference is not None and self.reference not in names:
            raise unknown_name("reference row", self.reference, names)
        if not isinstance(self.together, int) or self.together < 1:
            raise MetalossError(f"together={self.together}: expected a number ≥ 1")
        check_words(self.common, "the common words")
        check_tuning(self)
        for block in self.blocks:
            check_without(self, block)
        check_groups(self)
        check_aside(self)

    def of_block(self, block: Block) -> Study:
        """Return one block as a study of its own."""
        title = f"{self.description}: {block.name}" if self.description else block.name
        rows = tuple(row for row in self.rows if row.name not in block.without)
        tuned = any(row.tune for row in rows)
        return replace(
            self,
            rows=rows,
            blocks=(),
            groups={},
            aside=tuple(name for name in self.aside if name not in block.without),
            common=(*self.common, *block.overrides),
            description=title,
            tuning_seeds=self.tuning_seeds if tuned else (),
        )

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
        >>> parse_row("focal: loss=focal loss.gamma=3").overrides
        ('loss=focal', 'loss.gamma=3')
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


def slug(name: str) -> str:
    """Return a name as a folder.

    Example:
        >>> slug("CNN, 40 % wrong labels")
        'cnn-40-wrong-labels'
    """
    return re.sub(r"[^\w.]+", "-", name.lower()).strip("-.")


def _check_names(what: str, named: Sequence[Row] | Sequence[Block]) -> None:
    names, slugs = [one.name for one in named], [one.slug for one in named]
    for index, name in enumerate(names):
        if name in names[:index] or slugs[index] in slugs[:index]:
            raise MetalossError(f"two {what} are called {name!r} (folder {slugs[index]!r})")
