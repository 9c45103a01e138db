"""A learned loss as Python source, for programs without metaloss."""

from __future__ import annotations

import torch
from torch import Tensor

from metaloss.losses.base import ClassReduction, LearnedLoss
from metaloss.types import Link

_HEAD = '''import torch
{helpers}
{constant}
def criterion(outputs, target):
    """{shapes} -> scalar."""
    outputs = outputs.to(torch.promote_types(outputs.dtype, torch.{least}))
{shift}    p = {link}
    counts = torch.ones_like(p[:, 0])
{target}
    one = torch.ones_like(p)
    value = one * ({formula})
    return (value.{reduction}(1) * counts).sum() / counts.sum().clamp(min=1)
'''
_CONSTANT = """
IGNORED = {ignore_index}  # rows with this class index do not count

"""
_SHIFT = """\
    shift = torch.tensor({shift}, dtype=torch.float64).to(outputs)
    outputs = outputs + shift.view(-1, *[1] * (outputs.dim() - 2))
"""
# On the CPU, scatter raises an error for a class index out of range. On a GPU it would end the
# process: there a wrong row becomes NaN instead.
_CLASSES = """\
    if target.is_floating_point():
        t = target.to(p)
        wrong = ~(t >= 0).all(1)
    else:
        ignored = target == IGNORED
        wrong = ((target < 0) | (target >= p.shape[1])) & ~ignored
        index = target.long().masked_fill(ignored, 0)
        if p.device.type != "cpu":
            index = index.masked_fill(wrong, 0)
        t = torch.zeros_like(p).scatter(1, index.unsqueeze(1), 1.0)
        counts = counts * ~ignored
    counts = counts.masked_fill(wrong, float("nan"))"""
_YES_NO = """\
    t = target.to(p)
    wrong = ~((t >= 0) & (t <= 1)).all(1)
    counts = counts.masked_fill(wrong, float("nan"))"""
_TARGETS = {Link.softmax: _CLASSES, Link.sigmoid: _YES_NO, Link.identity: "    t = target.to(p)"}
_LINKS = {Link.softmax: "outputs.softmax(1)", Link.sigmoid: "outputs.sigmoid()"}
_SHAPES = {
    Link.softmax: "(B, C, *) raw outputs, (B, *) class indices or (B, C, *) probabilities",
    Link.sigmoid: "(B, C, *) raw outputs, (B, C, *) targets from 0 to 1",
    Link.identity: "(B, C, *) outputs, (B, C, *) targets",
}


def criterion_text(
    loss: LearnedLoss, formula: str, *, helpers: str = "", shift: Tensor | None = None
) -> str:
    """Return the source of a function ``criterion(outputs, target)``.

    Args:
        loss: Has the link, the reduction and the ignored class index.
        formula: ℓ as a Python expression in the tensors ``outputs``, ``p``, ``t`` and ``one``, a
            tensor of ones.
        helpers: The source of what the formula calls.
        shift: (C,) what is added to the raw outputs; None: nothing.
    """
    constant = _CONSTANT.format(ignore_index=loss.ignore_index)
    shifts = "" if shift is None else _SHIFT.format(shift=shift.tolist())
    double = any(value.dtype == torch.float64 for value in loss.parameters())
    return _HEAD.format(
        helpers=f"\n{helpers.strip()}\n" if helpers else "",
        shift=shifts,
        least="float64" if double else "float32",
        constant=constant if loss.link is Link.softmax else "",
        shapes=_SHAPES[loss.link],
        link=_LINKS.get(loss.link, "outputs"),
        target=_TARGETS[loss.link],
        formula=formula,
        reduction="mean" if loss.class_reduction is ClassReduction.mean else "sum",
    )
