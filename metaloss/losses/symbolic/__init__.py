"""Losses that are expressions: operators, trees, a parser, output as text, and the loss."""

from metaloss.losses.symbolic.expression import Expression
from metaloss.losses.symbolic.operators import OPERATORS, Operator
from metaloss.losses.symbolic.parse import parse
from metaloss.losses.symbolic.symbolic import Symbolic, SymbolicConfig

__all__ = ["OPERATORS", "Expression", "Operator", "Symbolic", "SymbolicConfig", "parse"]
