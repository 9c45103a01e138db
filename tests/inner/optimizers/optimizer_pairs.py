"""Each inner optimizer beside torch's, and gradients of fixed shapes drawn by a number."""

import torch

from metaloss.inner import SGD, Adam, AdamW, RMSprop

SHAPES = {"w": (3, 2), "b": (2,), "scalar": ()}


def draws(dtype: torch.dtype, number: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(number)
    values = {n: torch.randn(s, generator=draw, dtype=torch.float64) for n, s in SHAPES.items()}
    values["b"][0] = 0.0  # one entry whose gradient is always zero
    return {name: value.to(dtype) for name, value in values.items()}


PAIRS = {
    "sgd": (SGD(lr=0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
    "sgd_decay": (
        SGD(lr=0.1, weight_decay=0.05),
        lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.05),
    ),
    "momentum": (SGD(lr=0.1, momentum=0.9), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)),
    "dampening": (
        SGD(lr=0.1, momentum=0.8, dampening=0.3, weight_decay=0.05),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8, dampening=0.3, weight_decay=0.05),
    ),
    "nesterov": (
        SGD(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.05),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.05),
    ),
    "adam": (Adam(lr=0.01), lambda p: torch.optim.Adam(p, lr=0.01)),
    "adam_all": (
        Adam(lr=0.01, beta1=0.8, beta2=0.95, eps=1e-3, weight_decay=0.1),
        lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.1),
    ),
    "adamw": (AdamW(lr=0.01), lambda p: torch.optim.AdamW(p, lr=0.01)),
    "adamw_all": (
        AdamW(lr=0.01, beta1=0.7, beta2=0.9, eps=1e-4, weight_decay=0.2),
        lambda p: torch.optim.AdamW(p, lr=0.01, betas=(0.7, 0.9), eps=1e-4, weight_decay=0.2),
    ),
    "rmsprop": (RMSprop(lr=0.01), lambda p: torch.optim.RMSprop(p, lr=0.01)),
    "rmsprop_centered": (
        RMSprop(lr=0.01, centered=True),
        lambda p: torch.optim.RMSprop(p, lr=0.01, centered=True),
    ),
    "rmsprop_all": (
        RMSprop(lr=0.01, alpha=0.9, eps=1e-4, momentum=0.5, centered=True, weight_decay=0.1),
        lambda p: torch.optim.RMSprop(
            p, lr=0.01, alpha=0.9, eps=1e-4, momentum=0.5, centered=True, weight_decay=0.1
        ),
    ),
}
