"""The options of all image tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import ClassVar

import numpy as np
from torch import Tensor

from metaloss.contracts import Task
from metaloss.data.augment import CropFlipCutout
from metaloss.data.checks import number
from metaloss.data.inputs import Inputs, ScaledInputs
from metaloss.data.number_source import NumberSource
from metaloss.data.scaling import fit_channels
from metaloss.data.source import Table
from metaloss.data.targets.problems import ClassOptions, ClassProblem, Problem
from metaloss.errors import check_whole


class Augment(Enum):
    """The augmentation of training images: none, a shifted crop, or a crop and a flip."""

    none = "none"
    crop = "crop"
    crop_flip = "crop_flip"


@dataclass(frozen=True, kw_only=True)
class PictureRows(NumberSource, ClassOptions):
    """Images (B, C, H, W) in float32. Each channel is scaled by the pixels of the training rows.

    Each batch of training rows is augmented on the device. Trusted and test rows are never
    augmented.
    """

    augment: Augment = field(
        default=Augment.none,
        metadata={"help": "augmentation of training batches: none, crop or crop_flip"},
    )
    padding: int = field(
        default=4,
        metadata={
            "help": "largest shift of a crop, in pixels",
            "needs": (
                lambda own: own.augment is not Augment.none,
                "task.augment=crop or crop_flip",
            ),
        },
    )
    cutout: int = field(
        default=0,
        metadata={"help": "side of the square that is covered in training images; 0: none"},
    )
    stream: bool | None = field(
        default=None,
        metadata={
            "help": "keep images in the CPU's memory and move batches; null: if they are large"
        },
    )

    valid_fraction: float
    per_feature: ClassVar[bool] = False
    # Without names of classes in the table.
    classes: ClassVar[int]

    def __post_init__(self) -> None:
        super().__post_init__()
        number("task.valid_fraction", self.valid_fraction, 0, 1)
        check_whole("task.padding", self.padding, 1)
        check_whole("task.cutout", self.cutout, 0)

    def build(self, seed: int) -> Task:
        """Read and split the images, stratified by class. The same seed gives the same task."""
        return replace(super().build(seed), stream=self.stream)

    def fit(self, table: Table, train: np.ndarray) -> Inputs:
        """Return the scaling of each channel."""
        return ScaledInputs(fit_channels(table.inputs[train]))

    def problem(self, table: Table) -> Problem:
        """Return the problem of classes."""
        names = table.classes
        outputs = self.classes if names is None else len(names)
        return ClassProblem(outputs=outputs, noise=self.label_noise, options=self, names=names)

    def augmentation(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        """Return the augmentation; None: none."""
        if self.augment is Augment.none and not self.cutout:
            return None
        return CropFlipCutout(
            padding=0 if self.augment is Augment.none else self.padding,
            flip=self.augment is Augment.crop_flip,
            cutout=self.cutout,
        )
