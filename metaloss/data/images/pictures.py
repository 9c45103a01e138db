"""Picture data sets with a published test split, from files on the disk."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import ClassVar

import numpy as np
from torch import Tensor

from metaloss.contracts import Task
from metaloss.data.augment import CropFlipCutout
from metaloss.data.checks import number, whole
from metaloss.data.files import download, missing, require_files
from metaloss.data.inputs import Inputs, ScaledInputs
from metaloss.data.number_source import NumberSource
from metaloss.data.scaling import fit_channels
from metaloss.data.source import Table
from metaloss.data.splits import Split, split_rest
from metaloss.data.targets.problems import ClassOptions, ClassProblem, Problem
from metaloss.errors import MetalossError

Pictures = tuple[np.ndarray, np.ndarray]


class Augment(Enum):
    """What is done to training pictures: nothing, a shifted crop, or that and a flip."""

    none = "none"
    crop = "crop"
    crop_flip = "crop_flip"


@dataclass(frozen=True, kw_only=True)
class PictureSource(NumberSource, ClassOptions):
    """Pictures (B, C, H, W) in float32, each channel scaled by the training rows' pixels.

    The published test split is the test part; training and trusted rows are drawn from the
    published training split, stratified by class. Augmentation is drawn anew for every batch of
    training rows, on the device; trusted and test rows are never augmented.
    """

    root: str = field(default="data", metadata={"help": "folder that holds the files"})
    download: bool = field(
        default=False, metadata={"help": "download missing files through torchvision"}
    )
    valid_fraction: float = field(
        default=0.1,
        metadata={"help": "trusted rows, which judge, as a share of the published training rows"},
    )
    augment: Augment = field(
        default=Augment.none,
        metadata={"help": "augmentation of training batches: none, crop or crop_flip"},
    )
    padding: int = field(default=4, metadata={"help": "largest shift of a crop, in pixels"})
    cutout: int = field(
        default=0,
        metadata={"help": "side of the square that is covered in training pictures; 0: none"},
    )
    stream: bool | None = field(
        default=None,
        metadata={
            "help": "keep pictures in the CPU's memory and move batches; null: if they are large"
        },
    )

    classes: ClassVar[int]
    per_feature: ClassVar[bool] = False
    files: ClassVar[tuple[str, ...]]
    suffixes: ClassVar[tuple[str, ...]] = ("",)
    archive: ClassVar[str]

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        number("task.valid_fraction", self.valid_fraction, 0, 1)
        whole("task.padding", self.padding, 1)
        whole("task.cutout", self.cutout, 0)

    @abstractmethod
    def read(self, root: Path, test: bool) -> Pictures:
        """Return pictures (n, C, H, W) uint8 and labels (n,) of a published split."""

    @abstractmethod
    def fetch(self, root: Path) -> None:
        """Download the files."""

    def build(self, seed: int) -> Task:
        """Read and split the pictures, stratified; the same seed gives the same task."""
        return replace(super().build(seed), stream=self.stream)

    def table(self) -> Table:
        """Return the rows of both published splits, the test rows last."""
        root = Path(self.root).expanduser()
        if self.download and (lacking := missing(root, self.files, self.suffixes)):
            put = f"put {self.archive} into {root.absolute()}, which lacks {', '.join(lacking)}"
            download(self.title, lambda: self.fetch(root), by_hand=put)
        require_files(
            root, self.files, task=self.title, source=self.archive, suffixes=self.suffixes
        )
        parts = []
        for test in (False, True):
            pictures, labels = self.read(root, test)
            self._check(pictures, labels, "test" if test else "training")
            parts.append((pictures, labels.astype(np.int64)))
        pictures, labels = (np.concatenate(both) for both in zip(*parts, strict=True))
        # SVHN's come with their axes in another order in memory.
        last = np.arange(len(parts[0][1]), len(labels))
        return Table(np.ascontiguousarray(pictures), labels, given={"test": last})

    def problem(self, table: Table) -> Problem:
        """Return the classes."""
        return ClassProblem(outputs=self.classes, noise=self.label_noise, options=self)

    def split(self, table: Table, strata: np.ndarray | None, rng: np.random.Generator) -> Split:
        """Return the published test rows, and a split of the others."""
        fractions = self.valid_fraction, 0.0
        return split_rest(len(table.targets), table.given, fractions, rng, strata=strata)

    def fit(self, table: Table, train: np.ndarray) -> Inputs:
        """Return the scaling of each channel."""
        return ScaledInputs(fit_channels(table.inputs[train]))

    def augmentation(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        """Return what the options ask for."""
        if self.augment is Augment.none and not self.cutout:
            return None
        return CropFlipCutout(
            padding=0 if self.augment is Augment.none else self.padding,
            flip=self.augment is Augment.crop_flip,
            cutout=self.cutout,
        )

    def _check(self, pictures: np.ndarray, labels: np.ndarray, part: str) -> None:
        fits = pictures.dtype == np.uint8 and pictures.ndim == 4
        if not fits or labels.shape != (len(pictures),) or not len(labels):
            raise MetalossError(
                f"task={self.title}: {part} pictures {pictures.shape} in {pictures.dtype} and "
                f"labels {labels.shape}; expected (n, C, H, W) in uint8 and (n,)"
            )
        if not 0 <= labels.min() <= labels.max() < self.classes:
            raise MetalossError(
                f"task={self.title}: {part} labels from {labels.min()} to {labels.max()}; "
                f"expected 0 to {self.classes - 1}"
            )
