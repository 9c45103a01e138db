"""Starts: how φ is initialised."""

from metaloss.starts.imitate import Imitate, imitate
from metaloss.starts.keep import Keep
from metaloss.starts.random import Random

__all__ = ["Imitate", "Keep", "Random", "imitate"]
