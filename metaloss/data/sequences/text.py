"""Language modelling on characters."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import ClassVar

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from metaloss.contracts import Task
from metaloss.data.checks import fractions
from metaloss.data.corruptions import NoiseKind, flip_labels
from metaloss.data.inputs import GivenInputs, Inputs
from metaloss.data.source import RowSource, Table
from metaloss.data.splits import Split, split_rows
from metaloss.data.targets.kinds import Classes, Kind
from metaloss.data.targets.problems import LabelOptions, Problem
from metaloss.errors import MetalossError, check_whole


class TextMetric(Enum):
    """The metric: cross-entropy in bits, or the share of wrong characters."""

    bits = "bits"
    error = "error"


@dataclass(frozen=True, kw_only=True)
class TokenProblem(Problem):
    """A class for each position of a row: targets (n, T)."""

    outputs: int
    noise: float
    noise_kind: NoiseKind

    @property
    def kind(self) -> Kind:
        """Classes: one for each character."""
        return Classes()

    def corrupted(self, targets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the targets with a share of all positions wrong."""
        flat = flip_labels(targets.reshape(-1), self.noise, self.outputs, rng, self.noise_kind)
        return flat.reshape(targets.shape)


@dataclass(frozen=True, kw_only=True)
class Text(RowSource, LabelOptions):
    """Language modelling on the characters of a text file in UTF-8.

    Inputs (B, T) int64; targets (B, T) are the next characters. A model returns raw outputs (B, C,
    T), C being the number of different characters of the text. Rows are consecutive pieces of the
    text; repeated ones are left out. The test rows are the end of the text. The seed draws training
    and trusted rows from the rest.

    Without a file, the text is the topics of Python's ``help()``, about half a million characters.
    It depends on the version of Python.

    Example:
        >>> import torch
        >>> task = Text(length=32).build(seed=0)
        >>> task.input_shape, task.train.targets.shape[1:], task.metric_name
        ((32,), torch.Size([32]), 'bits_per_character')
        >>> torch.equal(task.train.inputs[:, 1:], task.train.targets[:, :-1])
        True
    """

    path: str = field(
        default="", metadata={"help": "a text file in UTF-8; empty: Python's help texts"}
    )
    length: int = field(default=64, metadata={"help": "T, the number of characters in a row"})
    metric: TextMetric = field(
        default=TextMetric.bits,
        metadata={"help": "bits (per character), or error (share of wrong characters)"},
    )
    valid_fraction: float = field(
        default=0.1, metadata={"help": "trusted rows for meta-batches, as a share of all rows"}
    )
    test_fraction: float = field(
        default=0.1, metadata={"help": "test rows (the end of the text), as a share of all rows"}
    )

    title: ClassVar[str] = "text"
    about: ClassVar[str] = "the next character of a text"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("task.length", self.length, 1)
        fractions(self.valid_fraction, self.test_fraction)

    def table(self) -> Table:
        """Return the rows in the order of the text."""
        text = read_text(self.path) if self.path else python_help()
        count = (len(text) - 1) // self.length
        alphabet, used = np.unique(list(text[: count * self.length + 1]), return_inverse=True)
        if len(alphabet) < 2 or count < 1:
            raise MetalossError(
                f"task.path={self.path}: {len(text)} characters, {len(set(text))} different ones; "
                f"expected two different ones, and more than task.length={self.length} characters"
            )
        inputs = used[:-1].reshape(count, self.length)
        _, first = np.unique(inputs, axis=0, return_index=True)
        first = np.sort(first)
        source = Path(self.path).name if self.path else "Python's help texts"
        return Table(
            inputs[first],
            used[1:].reshape(count, self.length)[first],
            name=f"text-{Path(self.path).stem}" if self.path else None,
            about=f"the next character of {source}, {len(alphabet)} different ones",
        )

    def problem(self, table: Table) -> Problem:
        """Return the problem, with a class for each character of the whole text."""
        count = int(max(table.inputs.max(), table.targets.max())) + 1
        return TokenProblem(outputs=count, noise=self.label_noise, noise_kind=self.noise_kind)

    def split(self, table: Table, strata: np.ndarray | None, rng: np.random.Generator) -> Split:
        """Return the end of the text as test rows, and a split of the rest."""
        count = len(table.targets)
        before = count - round(self.test_fraction * count)
        if before == count:
            raise MetalossError(
                f"task.test_fraction={self.test_fraction}: no test rows, of {count} rows; expected "
                "a longer text or a shorter task.length"
            )
        share = self.valid_fraction * count / before
        split = split_rows(before, min(share, 1.0), 0, rng)
        return split._replace(test=np.arange(before, count))

    def fit(self, table: Table, train: np.ndarray) -> Inputs:
        """Return a function that returns the characters unchanged."""
        return GivenInputs()

    def build(self, seed: int) -> Task:
        """Cut and split the text. The same seed gives the same task."""
        task = super().build(seed)
        if self.metric is TextMetric.error:
            return task
        return replace(task, metric=bits_per_character, metric_name="bits_per_character")


def bits_per_character(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy in bits.

    Args:
        outputs: (B, C, T) raw outputs.
        targets: (B, T) class indices; −100 does not count.

    Example:
        >>> import torch
        >>> outputs, targets = torch.zeros(2, 8, 3), torch.zeros(2, 3, dtype=torch.int64)
        >>> round(bits_per_character(outputs, targets).item(), 6)
        3.0
    """
    return F.cross_entropy(outputs, targets) / math.log(2)


def read_text(path: str) -> str:
    """Return the text of a file in UTF-8.

    Raises:
        MetalossError: If the file cannot be read or is not in UTF-8.
    """
    file = Path(path).expanduser()
    try:
        return file.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise MetalossError(f"task.path={path}: {reason}; expected a text file") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise MetalossError(
            f"{path}, line {line}: not UTF-8 (byte 0x{error.object[error.start]:02x}); save the "
            "file in UTF-8"
        ) from error


def python_help() -> str:
    """Return the topics of Python's ``help()``, in the order of their names."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name].strip() for name in sorted(topics))
