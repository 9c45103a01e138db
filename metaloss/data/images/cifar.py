"""CIFAR-10 and CIFAR-100: colour images of 32×32 pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from metaloss.data.files import reading
from metaloss.data.images.picture_rows import Augment
from metaloss.data.images.pictures import Pictures, PictureSource
from metaloss.data.images.plain_pickle import read_plain
from metaloss.errors import MetalossError


@dataclass(frozen=True, kw_only=True)
class CIFAR10(PictureSource):
    """CIFAR-10: 50,000 training and 10,000 test images, 32×32 pixels in colour, ten classes.

    Inputs (B, 3, 32, 32). Files: ``ROOT/cifar-10-batches-py/data_batch_1`` to ``data_batch_5``
    and ``test_batch``, as in ``cifar-10-python.tar.gz``. By default, training images are padded
    by 4 pixels, cropped and flipped at random.

    The files are pickles. torchvision reads them with ``pickle``, which may execute code in them.
    Here they are read by a reader that supports only arrays and plain containers.

    Reference:
        Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. The
        augmentation: He, Zhang, Ren & Sun, CVPR 2016, section 4.2.
    """

    augment: Augment = field(
        default=Augment.crop_flip,
        metadata={"help": "augmentation of training batches: none, crop or crop_flip"},
    )

    title: ClassVar[str] = "cifar10"
    about: ClassVar[str] = "colour images, 32×32, ten classes; error: share of wrong classes"
    classes: ClassVar[int] = 10
    files: ClassVar[tuple[str, ...]] = (
        *(f"cifar-10-batches-py/data_batch_{number}" for number in range(1, 6)),
        "cifar-10-batches-py/test_batch",
    )
    archive: ClassVar[str] = "the unpacked cifar-10-python.tar.gz"
    labels: ClassVar[str] = "labels"
    published: ClassVar[str] = "CIFAR10"

    def read(self, root: Path, test: bool) -> Pictures:
        """Return images (n, 3, 32, 32) and labels (n,)."""
        pictures, labels = [], []
        for name in self.files[-1:] if test else self.files[:-1]:
            with reading(root / name), (root / name).open("rb") as file:
                content = read_plain(file)
                pictures.append(content["data"].reshape(-1, 3, 32, 32))
                labels.append(np.asarray(content[self.labels], dtype=np.int64))
                if len(pictures[-1]) != len(labels[-1]):
                    raise MetalossError(
                        f"{root / name}: {len(pictures[-1])} images, {len(labels[-1])} labels"
                    )
        return np.concatenate(pictures), np.concatenate(labels)

    def fetch(self, root: Path) -> None:
        """Download and unpack the archive."""
        from torchvision import datasets
        from torchvision.datasets.utils import download_and_extract_archive

        # Not the class itself, which would unpickle the files.
        cls = getattr(datasets, self.published)
        download_and_extract_archive(cls.url, root, filename=cls.filename, md5=cls.tgz_md5)


@dataclass(frozen=True, kw_only=True)
class CIFAR100(CIFAR10):
    """CIFAR-100: like CIFAR-10, with a hundred (fine) classes.

    Inputs (B, 3, 32, 32). Files: ``ROOT/cifar-100-python/train`` and ``test``, as in
    ``cifar-100-python.tar.gz``.

    Reference:
        Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """

    title: ClassVar[str] = "cifar100"
    about: ClassVar[str] = "colour images, 32×32, a hundred classes; error: share of wrong classes"
    classes: ClassVar[int] = 100
    files: ClassVar[tuple[str, ...]] = ("cifar-100-python/train", "cifar-100-python/test")
    archive: ClassVar[str] = "the unpacked cifar-100-python.tar.gz"
    labels: ClassVar[str] = "fine_labels"
    published: ClassVar[str] = "CIFAR100"
