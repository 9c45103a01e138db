"""Images that stay in their files, and are read again for every batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from metaloss.data.datasets import is_large
from metaloss.data.images.picture_inputs import PictureForm, PictureInputs, readable
from metaloss.data.lazy import LazyRows
from metaloss.data.scaling import Scaling, scaling_of_sums
from metaloss.errors import known_name

# torchvision's random transforms of uint8 images (C, H, W), by the names of their classes.
_TRANSFORMS: Mapping[str, Mapping[str, Any]] = {
    "RandomResizedCrop": {"scale": (0.35, 1.0)},
    "RandomHorizontalFlip": {},
    "RandomVerticalFlip": {},
    "RandomRotation": {"degrees": 15},
    "RandomPerspective": {"distortion_scale": 0.3},
    "RandomGrayscale": {"p": 0.2},
    "RandomErasing": {},
    "ColorJitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
    "GaussianBlur": {"kernel_size": 5},
    "AutoAugment": {},
    "RandAugment": {},
    "TrivialAugmentWide": {},
    "AugMix": {},
}


@dataclass(frozen=True)
class PictureFiles:
    """Files of images, and of each image the sums that the scaling is made of.

    Attributes:
        paths: (n,) absolute paths.
        sums: (n, C) the sum of each channel's pixels.
        squares: (n, C) the sum of their squares.
        marks: (n,) hashes of the pixels.
    """

    paths: np.ndarray
    sums: np.ndarray
    squares: np.ndarray
    marks: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> PictureFiles:
        """Return some of the files."""
        return PictureFiles(*(values[rows] for values in vars(self).values()))

    def scaling(self, form: PictureForm) -> Scaling:
        """Return the scaling that `fit_channels` fits on the images."""
        total, squares = (one.sum(0)[:, None, None] for one in (self.sums, self.squares))
        return scaling_of_sums(total, squares, len(self.paths) * form.size**2)


def measured(
    folder: Path, files: Sequence[Path], form: PictureForm
) -> tuple[PictureFiles, np.ndarray]:
    """Read every file once; return the readable ones, and their places among ``files``."""

    def measure(path: Path) -> tuple[str, np.ndarray, np.ndarray, int]:
        pixels = form(path).astype(np.int64)
        squares = np.square(pixels).sum((1, 2))
        return str(path.absolute()), pixels.sum((1, 2)), squares, mark(pixels.astype(np.uint8))

    found, kept = readable(folder, files, measure)
    return PictureFiles(*(np.array(one) for one in zip(*found, strict=True))), kept


def concatenated(parts: Sequence[PictureFiles]) -> PictureFiles:
    """Return the files of all parts."""
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    return PictureFiles(*(np.concatenate(values) for values in columns))


def mark(pixels: np.ndarray) -> int:
    """Return a number by which equal images are found."""
    return hash(pixels.tobytes())


def transforms_of(names: Sequence[str], size: int) -> list[Callable[[Tensor], Tensor]]:
    """Return random transforms by name.

    Raises:
        MetalossError: If a name is unknown.
    """
    from torchvision.transforms import v2

    made = []
    for name in names:
        options = dict(_TRANSFORMS[known_name("task.transforms", name, _TRANSFORMS)])
        if name == "RandomResizedCrop":
            options |= {"size": size, "antialias": True}
        made.append(getattr(v2, name)(**options))
    return made


def lazy_inputs(
    files: PictureFiles, encode: PictureInputs, names: Sequence[str], read: Mapping[str, Any]
) -> Tensor:
    """Return the inputs of images, which are read for every batch if they are transformed or large.

    ``names`` are those of the random transforms; ``read`` are the options of `LazyRows`.
    """
    rows = LazyRows(_Pictures(files.paths.tolist(), encode, names), **read)
    if names or is_large(rows.numel() * rows.element_size()):
        return cast(Tensor, rows)
    return torch.cat([*rows.split(len(rows))])


class _Pictures(Dataset):
    def __init__(self, paths: list[str], encode: PictureInputs, names: Sequence[str]) -> None:
        self.paths, self.encode = paths, encode
        self.transforms = transforms_of(names, encode.form.size)
        self.crops = bool(names) and names[0] == "RandomResizedCrop"

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        form, path = self.encode.form, Path(self.paths[row])
        # A random crop takes its part of the whole image.
        pixels = form.whole(path) if self.crops else torch.from_numpy(form(path))
        for transform in self.transforms:
            pixels = transform(pixels)
        return torch.from_numpy(self.encode(pixels.numpy())), 0
