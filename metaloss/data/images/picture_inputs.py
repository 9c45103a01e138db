"""Picture files as arrays of one size; files that cannot be read are left out and counted."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from metaloss.data.files import warn
from metaloss.data.inputs import Inputs, scaling_from_dict, scaling_to_dict
from metaloss.data.scaling import Scaling, as_float32
from metaloss.errors import MetalossError


@dataclass(frozen=True, kw_only=True)
class PictureForm:
    """What every picture is made into.

    Attributes:
        size: Height and width in pixels: the shorter side is scaled to it, the middle is taken.
        colour: Whether there are three channels, or one.
    """

    size: int
    colour: bool

    def __call__(self, path: Path) -> np.ndarray:
        """Return a file's picture (C, size, size) uint8."""
        from torchvision.transforms import v2

        made: Tensor = v2.functional.pil_to_tensor(self._opened(path))
        made = v2.functional.resize(made, [self.size], antialias=True)
        return v2.functional.center_crop(made, [self.size, self.size]).numpy()

    def _opened(self, path: Path) -> Any:
        from PIL import Image, ImageOps

        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file)
            if picture.mode.startswith("I"):  # 16 bits a pixel, of which the upper 8 are kept
                picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
            return picture.convert("RGB" if self.colour else "L")


def read_pictures(
    folder: Path, files: Sequence[Path], form: PictureForm
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pictures (n, C, size, size) of those files that can be read, and which these are.

    Raises:
        MetalossError: If none can be read.
    """

    def read(path: Path) -> np.ndarray | None:
        try:
            return form(path)
        # A damaged file can make a decoder fail in any way.
        except Exception:
            return None

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of decoders, about what they read all the same
        pictures = list(pool.map(read, files))
    lost = [path for path, picture in zip(files, pictures, strict=True) if picture is None]
    if len(lost) == len(files):
        raise MetalossError(f"{folder}: none of {len(files)} files can be read as a picture")
    if lost:
        warn(
            f"{folder}: {len(lost)} of {len(files)} pictures cannot be read and are left out, such "
            f"as {lost[0].relative_to(folder)}"
        )
    kept = np.flatnonzero([picture is not None for picture in pictures])
    return np.stack([picture for picture in pictures if picture is not None]), kept


def are_colour(files: Sequence[Path]) -> bool:
    """Return whether any of some files that can be read is in colour."""
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
    """Pictures of one size, each channel scaled: float32."""

    form: PictureForm
    scaling: Scaling
    kind = "pictures"

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Return (n, C, size, size) float32."""
        return as_float32(self.scaling(rows))

    def read(self, path: Path) -> tuple[np.ndarray, dict[str, list]]:
        """Return the pictures below a folder, or of one file, and where each is from."""
        if not path.exists():
            raise MetalossError(f"{path}: no such file; expected a picture or a folder of them")
        folder, files = (path, picture_files(path)) if path.is_dir() else (path.parent, [path])
        pictures, kept = read_pictures(folder, files, self.form)
        return pictures, {"file": [str(files[place].relative_to(folder)) for place in kept]}

    def taken(self, rows: Any) -> np.ndarray:
        """Return pictures (n, C, size, size) uint8, or those of the files that are named."""
        if isinstance(rows, list | tuple) and all(isinstance(one, str | Path) for one in rows):
            files = [Path(one).absolute() for one in rows]
            return read_pictures(Path("/"), files, self.form)[0]
        pictures = np.asarray(rows.cpu() if isinstance(rows, torch.Tensor) else rows)
        if pictures.dtype != np.uint8:
            raise MetalossError(f"rows: pictures in {pictures.dtype}; expected uint8, 0 to 255")
        return pictures

    def to_dict(self) -> dict[str, Any]:
        """Return size, colours, and each channel's mean and deviation."""
        return {
            "size": self.form.size,
            "colour": self.form.colour,
            **scaling_to_dict(self.scaling),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Return the same, to the last bit."""
        form = PictureForm(size=content["size"], colour=content["colour"])
        return cls(form=form, scaling=scaling_from_dict(content))


def picture_files(folder: Path) -> list[Path]:
    """Return the picture files below a folder, by name.

    Raises:
        MetalossError: If there are none.
    """
    from torchvision.datasets.folder import IMG_EXTENSIONS

    found = [path for path in folder.rglob("*") if path.suffix.lower() in IMG_EXTENSIONS]
    if not found:
        raise MetalossError(f"{folder}: no pictures in it; expected files such as .png or .jpg")
    return sorted(path for path in found if path.is_file())
