"""Convolutions, pooling, resampling: what works on places."""

import torch
from torch import nn
from torch.nn import functional as F

from ..kind import CLASSES, Expected, Group, Net, Truth, head, pooled, real

GROUP = Group("Convolutions, pooling, resampling")
add = GROUP.add


add(
    "Conv1d, dilated",
    lambda: pooled(nn.Conv1d(2, 4, 3, dilation=2), nn.Tanh(), width=4),
    real(2, 8),
)
add(
    "Conv2d, grouped, strided",
    lambda: pooled(
        nn.Conv2d(2, 4, 3, 2, 1, groups=2), nn.ReLU(), nn.Conv2d(4, 4, 2), nn.Tanh(), width=4
    ),
    real(2, 6, 6),
)
add(
    "Conv2d, depthwise, circular padding",
    lambda: pooled(
        nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular", groups=2), nn.SiLU(), width=4
    ),
    real(2, 5, 5),
)
add(
    "Conv2d, reflect padding",
    lambda: pooled(nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"), nn.Tanh(), width=4),
    real(2, 5, 5),
)
add("Conv3d", lambda: pooled(nn.Conv3d(1, 4, 2), nn.Tanh(), width=4), real(1, 3, 4, 4))
add(
    "ConvTranspose1d",
    lambda: pooled(nn.ConvTranspose1d(2, 4, 3, stride=2), nn.Tanh(), width=4),
    real(2, 5),
)
add(
    "ConvTranspose2d, an output a place",
    lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3, 2, 1), nn.ReLU(), nn.ConvTranspose2d(4, CLASSES, 2, 2)
    ),
    real(2, 4, 4),
    targets=(4, 4),
)
add(
    "ConvTranspose3d",
    lambda: pooled(nn.ConvTranspose3d(1, 4, 2), nn.Tanh(), width=4),
    real(1, 3, 3, 3),
)
add(
    "U-Net",
    lambda: Net(
        lambda m, x: m.out(torch.cat([m.up(torch.tanh(m.down(x))), x], 1)),
        down=nn.Conv2d(2, 4, 2, 2),
        up=nn.ConvTranspose2d(4, 4, 2, 2),
        out=nn.Conv2d(6, CLASSES, 1),
    ),
    real(2, 4, 4),
    targets=(4, 4),
)
for name, layer, size in (
    ("MaxPool2d", nn.MaxPool2d(2), 2),
    ("AvgPool2d", nn.AvgPool2d(3, 2, 1), 2),
    ("LPPool2d", nn.LPPool2d(2, 2), 2),
    ("AdaptiveAvgPool2d", nn.AdaptiveAvgPool2d(3), 3),
    ("AdaptiveMaxPool2d", nn.AdaptiveMaxPool2d(2), 2),
):
    add(
        name,
        lambda layer=layer, size=size: nn.Sequential(
            nn.Conv2d(2, 4, 3), layer, nn.Flatten(), head(4 * size * size)
        ),
        real(2, 6, 6),
    )
add(
    "MaxPool1d",
    lambda: nn.Sequential(nn.Conv1d(2, 4, 3), nn.MaxPool1d(2), nn.Flatten(), head(12)),
    real(2, 8),
)
add(
    "AvgPool1d",
    lambda: nn.Sequential(nn.Conv1d(2, 4, 3), nn.AvgPool1d(2), nn.Flatten(), head(12)),
    real(2, 8),
)
add(
    "MaxPool3d",
    lambda: nn.Sequential(nn.Conv3d(1, 4, 2), nn.MaxPool3d(2), nn.Flatten(), head(4)),
    real(1, 3, 3, 3),
)
add(
    "AvgPool3d",
    lambda: nn.Sequential(nn.Conv3d(1, 4, 2), nn.AvgPool3d(2), nn.Flatten(), head(4)),
    real(1, 3, 3, 3),
)
add(
    "AdaptiveMaxPool1d",
    lambda: nn.Sequential(nn.Conv1d(2, 4, 3), nn.AdaptiveMaxPool1d(2), nn.Flatten(), head(8)),
    real(2, 8),
)
add(
    "FractionalMaxPool2d",
    lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.FractionalMaxPool2d(2, output_size=3), nn.Flatten(), head(36)
    ),
    real(2, 8, 8),
    truth=Truth.own,
    traces=None,
)


def _unpooled(m, x):
    h, where = m.pool(m.first(x))
    return m.head(m.unpool(torch.tanh(h), where).flatten(1))


add(
    "MaxUnpool2d",
    lambda: Net(
        _unpooled,
        first=nn.Conv2d(2, 3, 3),
        pool=nn.MaxPool2d(2, return_indices=True),
        unpool=nn.MaxUnpool2d(2),
        head=head(48),
    ),
    real(2, 6, 6),
)
add(
    "PixelShuffle",
    lambda: nn.Sequential(nn.Conv2d(2, 4 * CLASSES, 1), nn.PixelShuffle(2)),
    real(2, 2, 2),
    targets=(4, 4),
)
add(
    "PixelUnshuffle",
    lambda: pooled(nn.Conv2d(2, 2, 1), nn.PixelUnshuffle(2), nn.Tanh(), width=8),
    real(2, 4, 4),
)
add(
    "ChannelShuffle",
    lambda: pooled(
        nn.Conv2d(2, 4, 1), nn.ChannelShuffle(2), nn.Conv2d(4, 4, 1, groups=2), nn.Tanh(), width=4
    ),
    real(2, 4, 4),
)
add(
    "Unfold and Fold",
    lambda: nn.Sequential(
        nn.Conv2d(2, 2, 1), nn.Unfold(2), nn.Tanh(), nn.Fold(4, 2), nn.Flatten(), head(32)
    ),
    real(2, 4, 4),
)
for name, layer in (
    ("ReflectionPad2d", nn.ReflectionPad2d(1)),
    ("ReplicationPad2d", nn.ReplicationPad2d(1)),
    ("ZeroPad2d", nn.ZeroPad2d(1)),
    ("CircularPad2d", nn.CircularPad2d(1)),
):
    add(
        name,
        lambda layer=layer: pooled(
            nn.Conv2d(2, 4, 1), layer, nn.Conv2d(4, 4, 2), nn.Tanh(), width=4
        ),
        real(2, 4, 4),
    )
for mode in ("nearest", "bilinear", "bicubic", "area"):
    add(
        f"interpolate, {mode}",
        lambda mode=mode: Net(
            lambda m, x: m.out(torch.tanh(F.interpolate(m.first(x), scale_factor=2, mode=mode))),
            first=nn.Conv2d(2, 4, 1),
            out=nn.Conv2d(4, CLASSES, 1),
        ),
        real(2, 3, 3),
        targets=(6, 6),
    )
add(
    "interpolate, trilinear",
    lambda: pooled(
        nn.Conv3d(1, 4, 2), nn.Upsample(scale_factor=2, mode="trilinear"), nn.Tanh(), width=4
    ),
    real(1, 3, 3, 3),
)


def _transformed(m, x):
    theta = m.place(x.flatten(1)).view(-1, 2, 3) + torch.eye(2, 3, dtype=x.dtype)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return m.head(torch.tanh(m.conv(F.grid_sample(x, grid, align_corners=False))).mean((2, 3)))


add(
    "grid_sample, affine_grid (spatial transformer)",
    lambda: Net(_transformed, place=nn.Linear(32, 6), conv=nn.Conv2d(2, 4, 2), head=head(4)),
    real(2, 4, 4),
    expected=Expected.reverse,
    traces=None,
)
