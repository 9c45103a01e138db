"""A learned loss as Python source that people can paste into a program without metaloss."""

from __future__ import annotations

from metaloss.losses.base import ClassReduction, LearnedLoss
from metaloss.types import Link

_HEAD = '''import torch


def criterion(outputs, target):
    """{shapes} -> scalar."""
    p = {link}
    t = {target}
    one = torch.ones_like(p)
    value = one * ({formula})
    return value.{reduction}(1).mean()
'''
_TARGETS = {
    Link.softmax: "target if target.is_floating_point() else torch.eye(p.shape[1]).to(p)[target]",
    Link.sigmoid: "target.to(p)",
    Link.identity: "target.to(p)",
}
_LINKS = {Link.softmax: "outputs.softmax(1)", Link.sigmoid: "outputs.sigmoid()"}
_SHAPES = {
    Link.softmax: "(B, C) raw outputs, (B,) class indices or (B, C) probabilities",
    Link.sigmoid: "(B, C) raw outputs, (B, C) targets from 0 to 1",
    Link.identity: "(B, C) outputs, (B, C) targets",
}


def criterion_text(loss: LearnedLoss, formula: str) -> str:
    """Return the source of a function ``criterion(outputs, target)``.

    Args:
        loss: Whose link and reduction it has.
        formula: ℓ as a Python expression in the tensors ``p``, ``t`` and ``one``, a tensor of ones.
    """
    return _HEAD.format(
        shapes=_SHAPES[loss.link],
        link=_LINKS.get(loss.link, "outputs"),
        target=_TARGETS[loss.link],
        formula=formula,
        reduction="mean" if loss.class_reduction is ClassReduction.mean else "sum",
    )
