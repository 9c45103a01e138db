"""Image data sets with a published test split, from files."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from metaloss.data.files import download, found
from metaloss.data.images.picture_rows import PictureRows
from metaloss.data.source import Table
from metaloss.errors import MetalossError

Pictures = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class PictureSource(PictureRows):
    """Images with a published test split.

    Training and trusted rows are drawn from the published training split, stratified by class.
    """

    root: str = field(default="data", metadata={"help": "folder with the files"})
    download: bool = field(
        default=False, metadata={"help": "download missing files through torchvision"}
    )
    valid_fraction: float = field(
        default=0.1,
        metadata={"help": "trusted rows for meta-batches, as a share of the training split"},
    )

    test_fraction: ClassVar[float] = 0.0
    files: ClassVar[tuple[str, ...]]
    suffixes: ClassVar[tuple[str, ...]] = ("",)
    archive: ClassVar[str]

    @abstractmethod
    def read(self, root: Path, test: bool) -> Pictures:
        """Return images (n, C, H, W) uint8 and labels (n,) of a published split."""

    @abstractmethod
    def fetch(self, root: Path) -> None:
        """Download the files."""

    def file(self, root: Path, name: str) -> Path | None:
        """Return the path of a file with the first suffix that exists; None if there is none."""
        return found(root, name, self.suffixes)

    def lacking(self, root: Path) -> list[str]:
        """Return the names of the missing files."""
        return [name for name in self.files if self.file(root, name) is None]

    def table(self) -> Table:
        """Return the rows of both published splits, the test rows last."""
        root = Path(self.root).expanduser()
        if self.download and (lacking := self.lacking(root)):
            put = f"put {self.archive} into {root.absolute()}, which has no {', '.join(lacking)}"
            download(self.title, lambda: self.fetch(root), by_hand=put)
        if lacking := self.lacking(root):
            raise MetalossError(
                f"task={self.title}: {root.absolute()} lacks {', '.join(lacking)}: put "
                f"{self.archive} there, or set task.root=FOLDER to where they are, or "
                "task.download=true"
            )
        parts = []
        for test in (False, True):
            pictures, labels = self.read(root, test)
            self._check(pictures, labels, "test" if test else "training")
            parts.append((pictures, labels.astype(np.int64)))
        pictures, labels = (np.concatenate(both) for both in zip(*parts, strict=True))
        # The images of SVHN have another order of axes in memory.
        last = np.arange(len(parts[0][1]), len(labels))
        return Table(np.ascontiguousarray(pictures), labels, given={"test": last})

    def _check(self, pictures: np.ndarray, labels: np.ndarray, part: str) -> None:
        fits = pictures.dtype == np.uint8 and pictures.ndim == 4
        if not fits or labels.shape != (len(pictures),) or not len(labels):
            raise MetalossError(
                f"task={self.title}: {part} images {pictures.shape} in {pictures.dtype} and "
                f"labels {labels.shape}; expected (n, C, H, W) in uint8 and (n,)"
            )
        if not 0 <= labels.min() <= labels.max() < self.classes:
            raise MetalossError(
                f"task={self.title}: {part} labels from {labels.min()} to {labels.max()}; "
                f"expected 0 to {self.classes - 1}"
            )
