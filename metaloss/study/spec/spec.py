"""The content of a study: rows, seeds, blocks and common arguments."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from metaloss.errors import MetalossError, check_whole, unknown_name

# The folder of the tuning runs, next to the folders of the rows.
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
        """The name of the folder."""
        return re.sub(r"[^\w.]+", "-", self.name.lower()).strip("-.")

    def _check(self, where: str, words: Iterable[str]) -> None:
        if not self.slug:
            raise MetalossError(f"{where}: expected a name with letters or digits")
        _check_words(words, where)


@dataclass(frozen=True, kw_only=True)
class Row(_Named):
    """One row of the table: a name and its ``KEY=VALUE`` arguments.

    Attributes:
        name: The name in tables and plots.
        overrides: Its arguments.
        tune: Settings, each a tuple of more arguments. In every block, the setting with the best
            validation metric is added to the row.
        tuned_as: The row whose chosen setting is used; None: none.

    Raises:
        MetalossError: If the name is empty, an argument is not ``KEY=VALUE`` or is set by the
            comparison itself, or both ``tune`` and ``tuned_as`` are given.
    """

    name: str
    overrides: tuple[str, ...] = ()
    tune: tuple[tuple[str, ...], ...] = ()
    tuned_as: str | None = None

    def __post_init__(self) -> None:
        where = f"row {self.name!r}"
        self._check(where, self.overrides)
        for index, words in enumerate(self.tune):
            _check_words(words, f"{where}, setting {index}")
        if self.tune and self.tuned_as is not None:
            raise MetalossError(f"{where}: has both tune and tuned_as: expected one of them")

    def with_words(self, words: Iterable[str]) -> Row:
        """Return the row with more arguments, and nothing to tune."""
        return Row(name=self.name, overrides=(*self.overrides, *words))


@dataclass(frozen=True, kw_only=True)
class Block(_Named):
    """A setting for all rows of one table, such as a task: a name and common arguments.

    Attributes:
        name: The name in tables and plots.
        overrides: Arguments for every row. They replace those of the study, and are replaced by
            those of a row.
        without: Names of rows that are not in this block.

    Raises:
        MetalossError: If the name is empty, or an argument is not ``KEY=VALUE`` or is set by the
            comparison itself.
    """

    name: str
    overrides: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._check(f"block {self.name!r}", self.overrides)


@dataclass(frozen=True, kw_only=True)
class Study:
    """Rows to train and compare over the same seeds.

    Attributes:
        rows: The rows of the table, in order.
        seeds: The seeds of every row; rows are paired by them.
        common: Arguments for every row, replaced by those of a row.
        reference: The row that the others are tested against; None: the first static one.
        description: One line, the title of the plot.
        blocks: For example several tasks; each has its own table and tests. None: a single block
            without a name.
        together: The number of seeds of a row in one vectorised program, if its parts support it.
        tuning_seeds: Seeds for the tuning of rows with ``tune``, none of them in ``seeds``.
        folds: Parts that the trusted rows are cut into for tuning. Each seed holds out one part and
            is scored by it; see ``task.folds``. 0: scored by the trusted rows that judge, so that
            methods that train on them cannot be tuned.
        equal: What tuned rows have the same of: the number of ``"settings"``, or the ``"steps"``
            that their settings cost together, with a meta-step as three.
        groups: Names of blocks by label. Each group has its own summary.
        aside: Names of rows that are not rivals of the reference, such as its ablations. The tests
            of rivals are not corrected for them, and the summary over blocks leaves them out.

    Raises:
        MetalossError: If there are no rows or seeds, a name or folder occurs twice, the reference,
            a group or ``aside`` has an unknown name, or the tuning is not possible or differs
            between rows.
    """

    rows: tuple[Row, ...]
    seeds: tuple[int, ...] = (0,)
    common: tuple[str, ...] = ()
    reference: str | None = None
    description: str = ""
    blocks: tuple[Block, ...] = ()
    together: int = 1
    tuning_seeds: tuple[int, ...] = ()
    folds: int = 0
    equal: str = "settings"
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    aside: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.rows:
            raise MetalossError('nothing to compare: give rows, such as --row "online: loss=mlp"')
        if not self.seeds:
            raise MetalossError("no seeds: expected for example --seeds 0-4")
        _check_apart("rows", self.rows)
        _check_apart("blocks", self.blocks)
        names = [row.name for row in self.rows]
        if self.reference is not None:
            _check_known("reference row", [self.reference], names)
        check_whole("together", self.together, 1)
        _check_words(self.common, "the common arguments")
        _check_tuning(self)
        for block in self.blocks:
            _check_without(self, block)
        for label, blocks in self.groups.items():
            if label == "all" or not blocks:
                raise MetalossError(f"group {label!r}: expected blocks, and a label other than all")
            _check_known(f"group {label!r}: block", blocks, [block.name for block in self.blocks])
        _check_known("aside: row", self.aside, names)

    def of_block(self, block: Block) -> Study:
        """Return one block as a separate study."""
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
        """Return the arguments of one run. A later one replaces an earlier one with the same key.

        Runs have no tracker by default, because the study shows their progress.
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
            raise MetalossError(f"two {what} are named {name!r} (folder {slugs[index]!r})")


def _check_known(what: str, names: Sequence[str], known: Sequence[str]) -> None:
    for index, name in enumerate(names):
        if name not in known:
            raise unknown_name(what, name, known)
        if name in names[:index]:
            raise MetalossError(f"{what} {name!r} occurs twice")


def _check_tuning(study: Study) -> None:
    """Raise if tuned rows have different numbers of settings, or there are no tuning seeds."""
    tuned = {row.name: row for row in study.rows if row.tune}
    if study.folds < 0 or study.folds == 1:
        raise MetalossError(f"folds={study.folds}: expected 0, or a number ≥ 2")
    if study.equal not in ("settings", "steps"):
        raise MetalossError(f"equal={study.equal}: expected settings or steps")
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
        if study.equal == "settings" and len(row.tune) != len(first.tune):
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
            f"seed {both[0]} is in the study's seeds and in its tuning seeds: expected "
            "different seeds for tuning"
        )


def _check_without(study: Study, block: Block) -> None:
    """Raise if a block leaves out a row that it needs."""
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
