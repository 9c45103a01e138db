"""Image files as arrays of one size. Files that cannot be read are left out and counted."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from metaloss.data.files import warn
from metaloss.data.inputs import Inputs, scaling_from_dict, scaling_to_dict
from metaloss.data.scaling import Scaling, as_float32
from metaloss.errors import MetalossError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class PictureForm:
    """The size and the colours of all images.

    Attributes:
        size: Height and width in pixels. The shorter side is scaled to it, the longer one is
            cropped.
        colour: Whether there are three channels, or one.
    """

    size: int
    colour: bool

    def __call__(self, path: Path) -> np.ndarray:
        """Return the image of a file, (C, size, size) uint8."""
        from torchvision.transforms import v2

        made = v2.functional.resize(self.whole(path), [self.size], antialias=True)
        return v2.functional.center_crop(made, [self.size, self.size]).numpy()

    def whole(self, path: Path) -> Tensor:
        """Return the whole image of a file in its own size, (C, H, W) uint8."""
        from PIL import Image, ImageOps
        from torchvision.transforms import v2

        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file)
            if picture.mode.startswith("I"):  # 16 bits per pixel: keep the upper 8
                picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
            picture = picture.convert("RGB" if self.colour else "L")
            return v2.functional.pil_to_tensor(picture)


def readable(
    folder: Path, files: Sequence[Path], read: Callable[[Path], T]
) -> tuple[list[T], np.ndarray]:
    """Return what ``read`` returns for the readable files, and the indices of these files.

    Raises:
        MetalossError: If no file can be read.
    """

    def tried(path: Path) -> T | None:
        try:
            return read(path)
        # A decoder may raise anything for a damaged file.
        except Exception:
            return None

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of decoders about files that they can read
        found = list(pool.map(tried, files))
    lost = [path for path, one in zip(files, found, strict=True) if one is None]
    if len(lost) == len(files):
        raise MetalossError(f"{folder}: none of {len(files)} files can be read as a picture")
    if lost:
        warn(
            f"{folder}: {len(lost)} of {len(files)} pictures cannot be read and are left out, such "
            f"as {lost[0].relative_to(folder)}"
        )
    kept = np.flatnonzero([one is not None for one in found])
    return [one for one in found if one is not None], kept


def read_pictures(
    folder: Path, files: Sequence[Path], form: PictureForm
) -> tuple[np.ndarray, np.ndarray]:
    """Return the images (n, C, size, size) of the readable files, and the indices of these files.

    Raises:
        MetalossError: If no file can be read.
    """
    pictures, kept = readable(folder, files, form)
    return np.stack(pictures), kept


def are_colour(files: Sequence[Path]) -> bool:
    """Return whether any readable file is in colour."""
    from PIL import Image

    for path in files:
        try:
            with Image.open(path) as picture:
                if picture.mode not in ("1", "L", "LA") and not picture.mode.startswith("I"):
                    return True
        except Exception:
            continue
    return False


@dataclass(frozen=True, kw_only=True)
class PictureInputs(Inputs):
    """Images of one size in float32, with each channel scaled."""

    form: PictureForm
    scaling: Scaling
    kind = "pictures"

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Return (n, C, size, size) float32."""
        return as_float32(self.scaling(rows))

    def read(self, path: Path) -> tuple[np.ndarray, dict[str, list]]:
        """Return the images of a folder and its subfolders, or of one file, and their paths."""
        if not path.exists():
            raise MetalossError(f"{path}: no such file; expected a picture or a folder of them")
        folder, files = (path, picture_files(path)) if path.is_dir() else (path.parent, [path])
        pictures, kept = read_pictures(folder, files, self.form)
        return pictures, {"file": [str(files[place].relative_to(folder)) for place in kept]}

    def labelled(self, path: Path, classes: list[str] | None) -> tuple[np.ndarray, np.ndarray]:
        """Return the images of a folder with a subfolder for each class, and their classes."""
        samples = samples_in(path)
        pictures, kept = read_pictures(path, [file for file, _ in samples], self.form)
        return pictures, np.array([samples[place][1] for place in kept], dtype=object)

    def taken(self, rows: Any) -> np.ndarray:
        """Return images (n, C, size, size) uint8, given as an array or as paths of files."""
        if isinstance(rows, list | tuple) and all(isinstance(one, str | Path) for one in rows):
            files = [Path(one).absolute() for one in rows]
            return read_pictures(Path("/"), files, self.form)[0]
        pictures = np.asarray(rows.cpu() if isinstance(rows, torch.Tensor) else rows)
        if pictures.dtype != np.uint8:
            raise MetalossError(f"rows: pictures in {pictures.dtype}; expected uint8, 0 to 255")
        return pictures

    def to_dict(self) -> dict[str, Any]:
        """Return the size, and mean and standard deviation of each channel."""
        return {
            "size": self.form.size,
            "colour": self.form.colour,
            **scaling_to_dict(self.scaling),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Return the inputs that ``to_dict`` stored, bit for bit."""
        form = PictureForm(size=content["size"], colour=content["colour"])
        return cls(form=form, scaling=scaling_from_dict(content))


def picture_files(folder: Path) -> list[Path]:
    """Return the image files in a folder and its subfolders, sorted by path.

    Raises:
        MetalossError: If there is no such file.
    """
    from torchvision.datasets.folder import IMG_EXTENSIONS

    found = [path for path in folder.rglob("*") if path.suffix.lower() in IMG_EXTENSIONS]
    if not found:
        raise MetalossError(f"{folder}: no pictures in it; expected files such as .png or .jpg")
    return sorted(path for path in found if path.is_file())


def samples_in(folder: Path) -> list[tuple[Path, str]]:
    """Return the image files in the subfolders of a folder, with the names of the subfolders."""
    from torchvision.datasets import ImageFolder

    try:
        found: Any = ImageFolder(folder, allow_empty=True)
    except (OSError, RuntimeError) as error:
        reason = "no such folder" if not folder.is_dir() else "no subfolders"
        raise MetalossError(
            f"{folder}: {reason}; expected a folder with a subfolder of pictures for each class"
        ) from error
    if not found.samples:
        raise MetalossError(
            f"{folder}: no pictures in its subfolders; expected files such as .png or .jpg"
        )
    return [(Path(path), found.classes[label]) for path, label in found.samples]
