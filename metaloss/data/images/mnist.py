"""MNIST and Fashion-MNIST: grey images of 28×28 pixels, ten classes."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from metaloss.data.files import found, reading
from metaloss.data.images.pictures import Pictures, PictureSource

# Where Debian and Ubuntu put Fashion-MNIST.
SYSTEM = Path("/usr/share/datasets/fashion-mnist")
_PARTS = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")


def _files(folder: str) -> tuple[str, ...]:
    return tuple(f"{folder}/raw/{part}-ubyte" for part in _PARTS)


@dataclass(frozen=True, kw_only=True)
class MNIST(PictureSource):
    """MNIST: 60,000 training and 10,000 test digits, 28×28 pixels.

    Inputs (B, 1, 28, 28). Files: ``ROOT/MNIST/raw/train-images-idx3-ubyte``, and
    ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte``, ``t10k-labels-idx1-ubyte`` beside it,
    unpacked or as ``.gz``, in the layout of torchvision. No augmentation by default.

    Reference:
        LeCun, Bottou, Bengio & Haffner, "Gradient-Based Learning Applied to Document
        Recognition", Proceedings of the IEEE, 1998.
    """

    title: ClassVar[str] = "mnist"
    about: ClassVar[str] = "handwritten digits, 28×28, ten classes; error: share of wrong classes"
    classes: ClassVar[int] = 10
    folder: ClassVar[str] = "MNIST"
    files: ClassVar[tuple[str, ...]] = _files("MNIST")
    suffixes: ClassVar[tuple[str, ...]] = ("", ".gz")
    archive: ClassVar[str] = "the four files (.gz or unpacked)"

    def read(self, root: Path, test: bool) -> Pictures:
        """Return images (n, 1, 28, 28) and labels (n,), read by torchvision."""
        from torchvision.datasets.mnist import read_image_file, read_label_file

        pair = []
        for name, read in zip(
            self.files[2:] if test else self.files[:2],
            (read_image_file, read_label_file),
            strict=True,
        ):
            path = self.file(root, name)
            assert path is not None
            with reading(path), TemporaryDirectory() as place:
                if path.suffix == ".gz":
                    # torchvision's reader needs an unpacked file; the user's folder is not changed.
                    packed, path = path, Path(place) / "file"
                    path.write_bytes(gzip.decompress(packed.read_bytes()))
                pair.append(read(str(path)).numpy())
        return pair[0][:, None], pair[1]

    def fetch(self, root: Path) -> None:
        """Download the files that are missing."""
        from torchvision import datasets

        getattr(datasets, self.folder)(root, download=True)


@dataclass(frozen=True, kw_only=True)
class FashionMNIST(MNIST):
    """Fashion-MNIST: 60,000 training and 10,000 test images of clothes, 28×28 pixels.

    Inputs (B, 1, 28, 28). Files: as MNIST's, in ``ROOT/FashionMNIST/raw``; or where Debian's and
    Ubuntu's package ``dataset-fashion-mnist`` puts them.

    Reference:
        Xiao, Rasul & Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
        Learning Algorithms", arXiv 1708.07747, 2017.
    """

    title: ClassVar[str] = "fashion_mnist"
    about: ClassVar[str] = "clothes, 28×28, ten classes; error: share of wrong classes"
    folder: ClassVar[str] = "FashionMNIST"
    files: ClassVar[tuple[str, ...]] = _files("FashionMNIST")
    archive: ClassVar[str] = (
        "the four files (.gz or unpacked; the Debian package dataset-fashion-mnist has them too)"
    )

    def file(self, root: Path, name: str) -> Path | None:
        """Return where a file is, below the root or in the system's folder; or None."""
        return super().file(root, name) or found(SYSTEM, Path(name).name, self.suffixes)
