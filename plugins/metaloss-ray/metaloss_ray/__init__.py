"""Sweeps, comparisons and searches of metaloss on Ray."""

from metaloss_ray.options import Ray

__all__ = ["Ray"]
