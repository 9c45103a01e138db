"""What a study may say about its words, its tuning, its blocks and its summary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from metaloss.errors import MetalossError, unknown_name

if TYPE_CHECKING:
    from metaloss.study.spec.spec import Block, Study

# Beside the rows' folders lies the one of the tuning runs.
TUNING_FOLDER = "tuning"


def check_words(words: Iterable[str], where: str) -> None:
    """Raise unless every word is ``KEY=VALUE`` with a key that a row may set."""
    for word in words:
        key, equals, _ = word.partition("=")
        if not equals or not key.strip():
            raise MetalossError(f"{where}: cannot read {word!r}: expected KEY=VALUE")
        if key.strip() in ("seed", "output"):
            raise MetalossError(f"{where}: {word!r}: the comparison itself sets {key.strip()}")


def check_tuning(study: Study) -> None:
    """Raise unless every tuned row has the same number of settings, and seeds to choose by."""
    tuned = [row for row in study.rows if row.tune]
    for row in tuned[1:]:
        first = tuned[0]
        if len(row.tune) != len(first.tune):
            raise MetalossError(
                f"row {row.name!r} has {len(row.tune)} settings to tune, row {first.name!r} "
                f"{len(first.tune)}: expected the same number for every tuned row"
            )
    names = [row.name for row in study.rows]
    for row in study.rows:
        if row.tuned_as is None:
            continue
        if row.tuned_as not in names:
            raise unknown_name(f"row that {row.name!r} is tuned as", row.tuned_as, names)
        if row.tuned_as not in [other.name for other in tuned]:
            raise MetalossError(
                f"row {row.name!r} is tuned as {row.tuned_as!r}, which has no settings to tune"
            )
    if tuned and not study.tuning_seeds:
        raise MetalossError(
            f"row {tuned[0].name!r} is tuned: expected tuning seeds, such as "
            "tuning: {seeds: 100-102}"
        )
    if study.tuning_seeds and not tuned:
        raise MetalossError("tuning seeds, but no row with settings to tune")
    both = sorted(set(study.seeds) & set(study.tuning_seeds))
    if both:
        raise MetalossError(
            f"seed {both[0]} is in the study's seeds and in its tuning seeds: expected other "
            "seeds to tune by than to compare by"
        )
    for row in study.rows if tuned else ():
        if row.slug == TUNING_FOLDER:
            raise MetalossError(
                f"row {row.name!r}: the folder {TUNING_FOLDER!r} is for the tuning runs: choose "
                "another name"
            )


def check_without(study: Study, block: Block) -> None:
    """Raise unless a block can do without the rows that it leaves out."""
    where = f"block {block.name!r}"
    names = [row.name for row in study.rows]
    for name in block.without:
        if name not in names:
            raise unknown_name(f"row that {where} is without", name, names)
    if study.reference in block.without:
        raise MetalossError(f"{where} is without the reference row {study.reference!r}")
    kept = [row for row in study.rows if row.name not in block.without]
    if not kept:
        raise MetalossError(f"{where} is without any row")
    for row in kept:
        if row.tuned_as in block.without:
            raise MetalossError(
                f"{where} is without {row.tuned_as!r}, but not without {row.name!r}, which is "
                "tuned as it"
            )


def check_groups(study: Study) -> None:
    """Raise unless every group has a label of its own and names blocks of the study."""
    blocks = [block.name for block in study.blocks]
    for label, names in study.groups.items():
        if label == "all" or not names:
            raise MetalossError(f"group {label!r}: expected blocks, and a label other than all")
        _check_known(f"group {label!r}: block", names, blocks)


def check_aside(study: Study) -> None:
    """Raise unless what is aside are rows of the study."""
    _check_known("aside: row", study.aside, [row.name for row in study.rows])


def _check_known(what: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Raise unless every name is known, and occurs once."""
    for index, name in enumerate(names):
        if name not in known:
            raise unknown_name(what, name, known)
        if name in names[:index]:
            raise MetalossError(f"{what} {name!r} occurs twice")
