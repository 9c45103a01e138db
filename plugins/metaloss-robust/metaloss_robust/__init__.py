"""Robust losses with a learnable shape, for metaloss."""

from metaloss_robust.barron import Barron
from metaloss_robust.poly import Poly

__all__ = ["Barron", "Poly"]
