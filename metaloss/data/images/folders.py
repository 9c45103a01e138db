"""Your own images: a folder with a subfolder for each class."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from metaloss.data.checks import DRAWS_TEST, DRAWS_TRUSTED, fractions
from metaloss.data.datasets import is_large
from metaloss.data.files import warn
from metaloss.data.images.lazy_pictures import (
    PictureFiles,
    concatenated,
    lazy_inputs,
    mark,
    measured,
    transforms_of,
)
from metaloss.data.images.picture_inputs import (
    PictureForm,
    PictureInputs,
    are_colour,
    read_pictures,
    samples_in,
)
from metaloss.data.images.picture_rows import PictureRows
from metaloss.data.inputs import Inputs
from metaloss.data.scaling import fit_channels
from metaloss.data.source import Table, origins_of
from metaloss.data.targets.shared_classes import check_shared_classes
from metaloss.errors import MetalossError, check_whole
from metaloss.options import unused

_FEWEST_ROWS = 20


@dataclass(frozen=True, kw_only=True)
class ImageFolders(PictureRows):
    """Images in folders, of any size, grey or in colour. The name of a subfolder is the class.

    Inputs (B, C, size, size): the shorter side is scaled to ``size``, the longer one is cropped at
    both ends. C is 1 if all training images are grey, otherwise 3. Files that cannot be read are
    left out, and a warning counts them. Trusted rows (for meta-batches) and test rows are drawn
    from the folder, or read from folders of their own.

    Raises:
        MetalossError: At ``build``, if a folder is missing or has no images in subfolders.
    """

    path: str = field(default="", metadata={"help": "a folder with a subfolder for each class"})
    trusted: str = field(
        default="", metadata={"help": "a folder of trusted images, for meta-batches; empty: drawn"}
    )
    test: str = field(default="", metadata={"help": "a folder of test images; empty: drawn"})
    size: int = field(default=64, metadata={"help": "height and width of the inputs, in pixels"})
    transforms: list[str] = field(
        default_factory=list,
        metadata={
            "help": "random transforms of torchvision for training images, drawn anew for each "
            "batch: [RandomResizedCrop,RandomHorizontalFlip,ColorJitter,RandAugment,...]"
        },
    )
    lazy: bool | None = field(
        default=None,
        metadata={
            "help": "read images again for every batch; null: if there are transforms, or if the "
            "images do not fit into memory"
        },
    )
    workers: int = field(
        default=0,
        metadata={
            "help": "processes that read images lazily; 0: this one",
            "needs": (lambda own: own.lazy is not False, "pictures that are read lazily"),
        },
    )
    valid_fraction: float = field(
        default=0.15,
        metadata={
            "help": "trusted rows for meta-batches, as a share of task.path",
            "needs": DRAWS_TRUSTED,
        },
    )
    test_fraction: float = field(
        default=0.25, metadata={"help": "test rows, as a share of task.path", "needs": DRAWS_TEST}
    )

    title: ClassVar[str] = "images"
    about: ClassVar[str] = "images of a folder; error: share of wrong classes"

    def __post_init__(self) -> None:
        super().__post_init__()
        fractions(self.valid_fraction, self.test_fraction, idle=unused(self))
        check_whole("task.size", self.size, 4)
        check_whole("task.workers", self.workers, 0)
        transforms_of(self.transforms, self.size)
        if self.transforms and self.lazy is False:
            raise MetalossError("task.lazy=false: images with task.transforms are read lazily")

    def table(self) -> Table:
        """Return the images of all folders, concatenated."""
        if not self.path:
            raise MetalossError("task=images needs task.path=FOLDER")
        folders = {"train": self.path, "valid": self.trusted, "test": self.test}
        folders = {part: path for part, path in folders.items() if path}
        listed = {part: samples_in(Path(path).expanduser()) for part, path in folders.items()}
        form = PictureForm(size=self.size, colour=are_colour([one for one, _ in listed["train"]]))
        classes = sorted({name for _, name in listed["train"]})
        classes += sorted({name for part in listed.values() for _, name in part} - {*classes})
        places = {name: place for place, name in enumerate(classes)}
        lazy = self._is_lazy(sum(map(len, listed.values())), form)
        parts: dict[str, tuple[Any, np.ndarray]] = {}
        files: dict[str, list[str]] = {}
        for part, samples in listed.items():
            folder = Path(folders[part]).expanduser()
            read = measured if lazy else read_pictures
            pictures, kept = read(folder, [path for path, _ in samples], form)
            files[part] = [str(samples[one][0].relative_to(folder)) for one in kept]
            parts[part] = pictures, np.array([places[samples[one][1]] for one in kept])
            _say_repeated(folders, part, pictures, parts["train"][0])
        if len(parts["train"][1]) < _FEWEST_ROWS or len(np.unique(parts["train"][1])) < 2:
            raise MetalossError(
                f"{self.path}: {len(parts['train'][1])} pictures in "
                f"{len(np.unique(parts['train'][1]))} subfolders; expected at least {_FEWEST_ROWS} "
                "in two or more"
            )
        labels = [label for _, label in parts.values()]
        check_shared_classes(list(folders.values()), labels, classes)
        ends = np.cumsum([len(label) for label in labels])
        given = zip([*parts][1:], ends[:-1], ends[1:], strict=True)
        join: Any = concatenated if lazy else np.concatenate
        return Table(
            join([pictures for pictures, _ in parts.values()]),
            np.concatenate(labels),
            given={part: np.arange(first, last) for part, first, last in given},
            name=Path(self.path).absolute().name,
            classes=classes,
            forms={"pictures": form},
            places={"file": files["train"]},
            origins=origins_of(self.path, self.trusted, self.test),
        )

    def fit(self, table: Table, train: np.ndarray) -> Inputs:
        """Return the size, and the scaling of each channel."""
        form, rows = table.forms["pictures"], table.inputs[train]
        lazy = isinstance(rows, PictureFiles)
        return PictureInputs(form=form, scaling=rows.scaling(form) if lazy else fit_channels(rows))

    def inputs_of(self, encode: Inputs, rows: Any, part: str, seed: int) -> Tensor:
        """Return the inputs (n, C, size, size), which may be read lazily."""
        if not isinstance(rows, PictureFiles):
            return super().inputs_of(encode, rows, part, seed)
        assert isinstance(encode, PictureInputs)
        train = part == "train"
        read = {"part": part, "workers": self.workers, "seed": seed}
        return lazy_inputs(
            rows, encode, self.transforms if train else (), {**read, "anew": None if train else 0}
        )

    def _is_lazy(self, count: int, form: PictureForm) -> bool:
        # As bytes, and scaled in four bytes.
        size = 5 * count * form.size**2 * (3 if form.colour else 1)
        lazy = bool(self.transforms) or is_large(size) if self.lazy is None else self.lazy
        if lazy and self.input_noise:
            raise MetalossError(
                f"task.input_noise={self.input_noise}: images that are read lazily get no noise; "
                "expected task.lazy=false without task.transforms"
            )
        return lazy


def _marks(pictures: Any) -> list[int]:
    if isinstance(pictures, PictureFiles):
        return list(pictures.marks)
    return [mark(one) for one in pictures]


def _say_repeated(folders: dict[str, str], part: str, pictures: Any, train: Any) -> None:
    if part == "train":
        return
    known = set(_marks(train))
    again = sum(one in known for one in _marks(pictures))
    if again:
        warn(f"{folders[part]}: {again} of {len(pictures)} pictures are in {folders['train']} too")
