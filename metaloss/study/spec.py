"""What a comparison is asked to do: rows, seeds, and what they share."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace

from metaloss.errors import MetalossError, unknown_name


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

    Raises:
        MetalossError: If there are no rows or seeds, a name or folder occurs twice, or the
            reference is no row.
    """

    rows: tuple[Row, ...]
    seeds: tuple[int, ...] = (0,)
    common: tuple[str, ...] = ()
    reference: str | None = None
    description: str = ""
    blocks: tuple[Row, ...] = ()
    together: int = 1

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

    def of_block(self, block: Row) -> Study:
        """Return one block as a study of its own."""
        title = f"{self.description}: {block.name}" if self.description else block.name
        common = (*self.common, *block.overrides)
        return replace(self, blocks=(), common=common, description=title)

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


def check_words(words: Iterable[str], where: str) -> None:
    """Raise unless every word is ``KEY=VALUE`` with a key that a row may set."""
    for word in words:
        key, equals, _ = word.partition("=")
        if not equals or not key.strip():
            raise MetalossError(f"{where}: cannot read {word!r}: expected KEY=VALUE")
        if key.strip() in ("seed", "output"):
            raise MetalossError(f"{where}: {word!r}: the comparison itself sets {key.strip()}")
