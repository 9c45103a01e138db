"""Street View House Numbers: colour images of 32×32 pixels, ten classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from metaloss.data.files import reading
from metaloss.data.images.picture_rows import Augment
from metaloss.data.images.pictures import Pictures, PictureSource


@dataclass(frozen=True, kw_only=True)
class SVHN(PictureSource):
    """SVHN: 73,257 training and 26,032 test digits from house numbers, 32×32 pixels in colour.

    Inputs (B, 3, 32, 32). Files: ``ROOT/train_32x32.mat`` and ``test_32x32.mat``; torchvision
    checks that they are the published ones. By default, training images are padded by 4 pixels and
    cropped at random; digits are not flipped.

    Reference:
        Netzer, Wang, Coates, Bissacco, Wu & Ng, "Reading Digits in Natural Images with
        Unsupervised Feature Learning", NIPS workshop, 2011.
    """

    augment: Augment = field(
        default=Augment.crop,
        metadata={"help": "augmentation of training batches: none, crop or crop_flip"},
    )

    title: ClassVar[str] = "svhn"
    about: ClassVar[str] = (
        "digits from house numbers, 32×32 in colour, ten classes; error: share of wrong classes"
    )
    classes: ClassVar[int] = 10
    files: ClassVar[tuple[str, ...]] = ("train_32x32.mat", "test_32x32.mat")
    archive: ClassVar[str] = "both files"

    def read(self, root: Path, test: bool) -> Pictures:
        """Return images (n, 3, 32, 32) and labels (n,), read by torchvision."""
        from torchvision import datasets

        with reading(root / self.files[test]):
            rows = datasets.SVHN(root, split="test" if test else "train")
        return rows.data, rows.labels

    def fetch(self, root: Path) -> None:
        """Download the files that are missing."""
        from torchvision import datasets

        for split in ("train", "test"):
            datasets.SVHN(root, split=split, download=True)
