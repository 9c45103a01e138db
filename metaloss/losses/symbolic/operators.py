"""The operators of expressions. All are defined and twice differentiable everywhere.

The analytic quotient ``aq`` is a / √(1 + b²). Of two equal arguments of ``min`` and ``max``, each
gets half of the derivative. ``log`` and ``sqrt`` are those of max(|a|, 1e-7).

Reference:
    Raymond, Chen, Xue & Zhang, "Learning Symbolic Model-Agnostic Loss Functions via
    Meta-Learning", TPAMI 2023: the operators of EvoMAL, with the safeguards of the authors' code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

FLOOR = 1e-7


@dataclass(frozen=True, kw_only=True)
class Operator:
    """One operator.

    Attributes:
        name: The name in an expression.
        arity: The number of its arguments, 1 or 2.
        apply: ``(*tensors) -> tensor``, element by element, with broadcasting. First and second
            derivatives are finite for finite arguments.
        python: The same as Python source for torch, with ``{0}`` and ``{1}`` for the arguments.
    """

    name: str
    arity: int
    apply: Callable[..., Tensor]
    python: str


def _quotient(a: Tensor, b: Tensor) -> Tensor:
    return a / torch.sqrt(1 + b * b)


def _floored(a: Tensor) -> Tensor:
    # Below the floor, the derivative is 0 and not infinite.
    return torch.clamp(torch.abs(a), min=FLOOR)


def _sign(a: Tensor) -> Tensor:
    # torch's sign of NaN is 0, which would hide a target that is NaN.
    return torch.where(a.isnan(), a, torch.sign(a))


_FLOORED = f"torch.clamp(torch.abs({{0}}), min={FLOOR})"
_ALL = (
    Operator(name="add", arity=2, apply=torch.add, python="({0} + {1})"),
    Operator(name="sub", arity=2, apply=torch.sub, python="({0} - {1})"),
    Operator(name="mul", arity=2, apply=torch.mul, python="({0} * {1})"),
    Operator(name="aq", arity=2, apply=_quotient, python="({0} / torch.sqrt(1 + {1} ** 2))"),
    Operator(name="min", arity=2, apply=torch.minimum, python="torch.minimum({0}, {1})"),
    Operator(name="max", arity=2, apply=torch.maximum, python="torch.maximum({0}, {1})"),
    Operator(name="sign", arity=1, apply=_sign, python="torch.sign({0})"),
    Operator(name="square", arity=1, apply=torch.square, python="({0} ** 2)"),
    Operator(name="abs", arity=1, apply=torch.abs, python="torch.abs({0})"),
    Operator(
        name="log", arity=1, apply=lambda a: torch.log(_floored(a)), python=f"torch.log({_FLOORED})"
    ),
    Operator(
        name="sqrt",
        arity=1,
        apply=lambda a: torch.sqrt(_floored(a)),
        python=f"torch.sqrt({_FLOORED})",
    ),
    Operator(name="tanh", arity=1, apply=torch.tanh, python="torch.tanh({0})"),
)
OPERATORS: Mapping[str, Operator] = MappingProxyType({one.name: one for one in _ALL})
