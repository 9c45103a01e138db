"""Random crops, flips and cutout: a picture of its own for every sample, without a loop."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metaloss.inner.keys import uniform


@dataclass(frozen=True, kw_only=True)
class CropFlipCutout:
    """``(inputs (B, C, H, W), key) -> (B, C, H, W)``: crop, then flip, then cutout.

    A pure function, drawn by integer arithmetic from the key: eager, compiled, vmapped and resumed
    runs draw the same, on every device. What lies outside of a picture, and what cutout covers, is
    0: the mean of the training rows, since inputs are normalised before.

    Attributes:
        padding: The crop has the picture's own size, shifted by up to so many pixels each way.
        flip: Mirror left and right, each picture with probability ½.
        cutout: Side of a square that is covered, in pixels; its centre is any pixel, so that it
            may reach over the edge. 0: none.

    Reference:
        He, Zhang, Ren & Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, section
        4.2 (crop and flip). DeVries & Taylor, "Improved Regularization of Convolutional Neural
        Networks with Cutout", arXiv 1708.04552, 2017.

    Example:
        >>> pictures, key = torch.randn(5, 3, 8, 8), torch.tensor(7)
        >>> augment = CropFlipCutout(padding=2, flip=True)
        >>> augment(pictures, key).shape
        torch.Size([5, 3, 8, 8])
        >>> torch.equal(augment(pictures, key), augment(pictures, key))
        True
    """

    padding: int = 0
    flip: bool = False
    cutout: int = 0

    def __call__(self, inputs: Tensor, key: Tensor) -> Tensor:
        """Return the augmented pictures."""
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
        # From 24 random bits: their product with a number of choices is exact in integers.
        bits = (uniform(key, 0, torch.Size((5, count))) * 2.0**24).long()
        drawn = torch.stack([row * n >> 24 for row, n in zip(bits, choices, strict=True)])
        return torch.cat((drawn[:2] - self.padding, drawn[2:]))

    def _covered(self, places: Tensor, centre: Tensor) -> Tensor:
        first = centre - self.cutout // 2
        return (places >= first) & (places < first + self.cutout)


def _cross(rows: Tensor, columns: Tensor) -> Tensor:
    """Return (B, H, W) out of (B, H) and (B, W): true where both are."""
    return rows.unsqueeze(2) & columns.unsqueeze(1)
