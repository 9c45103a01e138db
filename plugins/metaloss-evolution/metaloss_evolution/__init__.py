"""Evolutionary search for losses: CMA-ES over φ, genetic programming over expressions."""

from metaloss_evolution.cmaes import CMAES
from metaloss_evolution.gp import GP

__all__ = ["CMAES", "GP"]
