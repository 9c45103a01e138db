"""What a comparison is asked to do: rows, seeds, and what they share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from metaloss.errors import MetalossError, unknown_name

# The tuning runs lie in a folder of this name, beside the rows' folders.
TUNING_FOLDER = "tuning"


class _Named:
    """A row or a block.

    Example:
        >>> Row(name="CNN, 40 % wrong labels").slug
        'cnn-40-wrong-labels'
    """

    name: str

    @property
    def slug(self) -> str:
        """The name as a folder."""
        return re.sub(r"[^\w.]+", "-", self.name.lower()).strip("-.")

    def _check(self, where: str, words: Iterable[str]) -> None:
        if not self.slug:
            raise MetalossError(f"{where}: expected a name with letters or digits")
        _check_words(words, where)


@dataclass(frozen=True, kw_only=True)
class Row(_Named):
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
        self._check(where, self.overrides)
        for index, words in enumerate(self.tune):
            _check_words(words, f"{where}, setting {index}")
        if self.tune and self.tuned_as is not None:
            raise MetalossError(f"{where}: has both tune and tuned_as: expected one of them")

    def with_words(self, words: Iterable[str]) -> Row:
        """Return the row with further words, and nothing to tune."""
        return Row(name=self.name, overrides=(*self.overrides, *words))


@dataclass(frozen=True, kw_only=True)
class Block(_Named):
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
        self._check(f"block {self.name!r}", self.overrides)


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
        _check_apart("rows", self.rows)
        _check_apart("blocks", self.blocks)
        names = [row.name for row in self.rows]
        if self.reference is not None:
            _check_known("reference row", [self.reference], names)
        if not isinstance(self.together, int) or self.together < 1:
            raise MetalossError(f"together={self.together}: expected a number ≥ 1")
        _check_words(self.common, "the common words")
        _check_tuning(self)
        for block in self.blocks:
            _check_without(self, block)
        for label, blocks in self.groups.items():
            if label == "all" or not blocks:
                raise MetalossError(f"group {label!r}: expected blocks, and a label other than all")
            _check_known(f"group {label!r}: block", blocks, [block.name for block in self.blocks])
        _check_known("aside: row", self.aside, names)

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

        The study itself shows how its runs get on: they have no tracker unless one is asked for.
        """
        words = ["tracker=[]", *self.common, *row.overrides, f"seed={seed}"]
        return list({word.partition("=")[0].lstrip("+"): word for word in words}.values())


def _check_words(words: Iterable[str], where: str) -> None:
    for word in words:
        key, equals, _ = word.partition("=")
        if not equals or not key.strip():
            raise MetalossError(f"{where}: cannot read {word!r}: expected KEY=VALUE")
        if key.strip() in ("seed", "output"):
            raise MetalossError(f"{where}: {word!r}: the comparison itself sets {key.strip()}")


def _check_apart(what: str, named: Sequence[Row] | Sequence[Block]) -> None:
    names, slugs = [one.name for one in named], [one.slug for one in named]
    for index, name in enumerate(names):
        if name in names[:index] or slugs[index] in slugs[:index]:
            raise MetalossError(f"two {what} are called {name!r} (folder {slugs[index]!r})")


def _check_known(what: str, names: Sequence[str], known: Sequence[str]) -> None:
    for index, name in enumerate(names):
        if name not in known:
            raise unknown_name(what, name, known)
        if name in names[:index]:
            raise MetalossError(f"{what} {name!r} occurs twice")


def _check_tuning(study: Study) -> None:
    """Raise unless every tuned row has the same number of settings, and seeds to choose by."""
    tuned = {row.name: row for row in study.rows if row.tune}
    if study.tuning_seeds and not tuned:
        raise MetalossError("tuning seeds, but no row with settings to tune")
    for row in study.rows:
        if row.tuned_as is not None and row.tuned_as not in tuned:
            what = f"row that {row.name!r} is tuned as"
            _check_known(what, [row.tuned_as], [other.name for other in study.rows])
            raise MetalossError(
                f"row {row.name!r} is tuned as {row.tuned_as!r}, which has no settings to tune"
            )
        if tuned and row.slug == TUNING_FOLDER:
            raise MetalossError(
                f"row {row.name!r}: the folder {TUNING_FOLDER!r} is for the tuning runs: choose "
                "another name"
            )
    for row in tuned.values():
        first = next(iter(tuned.values()))
        if len(row.tune) != len(first.tune):
            raise MetalossError(
                f"row {row.name!r} has {len(row.tune)} settings to tune, row {first.name!r} "
                f"{len(first.tune)}: expected the same number for every tuned row"
            )
        if not study.tuning_seeds:
            raise MetalossError(
                f"row {row.name!r} is tuned: expected tuning seeds, such as "
                "tuning: {seeds: 100-102}"
            )
    both = sorted(set(study.seeds) & set(study.tuning_seeds))
    if both:
        raise MetalossError(
            f"seed {both[0]} is in the study's seeds and in its tuning seeds: expected other "
            "seeds to tune by than to compare by"
        )


def _check_without(study: Study, block: Block) -> None:
    """Raise unless a block can do without the rows that it leaves out."""
    where = f"block {block.name!r}"
    kept = [row for row in study.rows if row.name not in block.without]
    for name in block.without:
        _check_known(f"row that {where} is without", [name], [row.name for row in study.rows])
    if study.reference in block.without:
        raise MetalossError(f"{where} is without the reference row {study.reference!r}")
    if not kept:
        raise MetalossError(f"{where} is without any row")
    for row in kept:
        if row.tuned_as in block.without:
            raise MetalossError(
                f"{where} is without {row.tuned_as!r}, but not without {row.name!r}, which is "
                "tuned as it"
            )
