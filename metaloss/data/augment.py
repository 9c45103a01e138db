"""Random crops, flips and cutout of a batch of images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metaloss.inner.keys import uniform


@dataclass(frozen=True, kw_only=True)
class CropFlipCutout:
    """``(inputs (B, C, H, W), key) -> (B, C, H, W)``: crop, then flip, then cutout.

    The random numbers depend only on the key and are computed in integers. So eager, compiled,
    vmapped and resumed runs draw the same, on every device. Pixels outside of an image, and pixels
    that cutout covers, are 0, the mean of the normalised training rows.

    Attributes:
        padding: The largest shift of the crop in each direction, in pixels. The crop has the size
            of the image.
        flip: Whether to mirror left and right, each image with probability ½.
        cutout: The side of a covered square, in pixels. Its centre is any pixel, so that it may
            extend over the edge. 0: none.

    Reference:
        He, Zhang, Ren & Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, section
        4.2 (crop and flip). DeVries & Taylor, "Improved Regularization of Convolutional Neural
        Networks with Cutout", arXiv 1708.04552, 2017.

    Example:
        >>> images, key = torch.randn(5, 3, 8, 8), torch.tensor(7)
        >>> augment = CropFlipCutout(padding=2, flip=True)
        >>> augment(images, key).shape
        torch.Size([5, 3, 8, 8])
        >>> torch.equal(augment(images, key), augment(images, key))
        True
    """

    padding: int = 0
    flip: bool = False
    cutout: int = 0

    def __call__(self, inputs: Tensor, key: Tensor) -> Tensor:
        """Return the augmented images."""
        count, channels, height, width = inputs.shape
        down, across, mirror, top, left = self.draws(key, count, height, width).unsqueeze(2)
        rows = torch.arange(height, device=inputs.device)
        columns = torch.arange(width, device=inputs.device)
        from_row = rows + down  # (B, H)
        from_column = torch.where(mirror == 1, width - 1 - columns, columns) + across  # (B, W)
        seen = _cross(
            (from_row >= 0) & (from_row < height), (from_column >= 0) & (from_column < width)
        )
        if self.cutout:
            seen = seen & ~_cross(self._covered(rows, top), self._covered(columns, left))
        place = from_row.clamp(0, height - 1).unsqueeze(2) * width
        place = (place + from_column.clamp(0, width - 1).unsqueeze(1)).flatten(1)
        taken = inputs.flatten(2).gather(2, place.unsqueeze(1).expand(count, channels, -1))
        return torch.where(seen.unsqueeze(1), taken.view_as(inputs), inputs.new_zeros(()))

    def draws(self, key: Tensor, count: int, height: int, width: int) -> Tensor:
        """Return (5, B) whole numbers: shift down, shift right, flip, cutout's centre (2)."""
        shifts = 2 * self.padding + 1
        choices = (shifts, shifts, 2 if self.flip else 1, height, width)
        # From 24 random bits, whose product with the number of choices is exact in integers.
        bits = (uniform(key, 0, torch.Size((5, count))) * 2.0**24).long()
        drawn = torch.stack([row * n >> 24 for row, n in zip(bits, choices, strict=True)])
        return torch.cat((drawn[:2] - self.padding, drawn[2:]))

    def _covered(self, places: Tensor, centre: Tensor) -> Tensor:
        first = centre - self.cutout // 2
        return (places >= first) & (places < first + self.cutout)


def _cross(rows: Tensor, columns: Tensor) -> Tensor:
    """Return (B, H, W) from (B, H) and (B, W): true where both are true."""
    return rows.unsqueeze(2) & columns.unsqueeze(1)
