"""Learned losses, and hand-made ones with the same interface."""

from metaloss.losses.base import ClassReduction, LearnedLoss
from metaloss.losses.handcrafted import (
    MAE,
    MSE,
    CrossEntropy,
    Focal,
    GeneralizedCrossEntropy,
    LabelSmoothing,
)
from metaloss.losses.logit_adjusted import LogitAdjusted
from metaloss.losses.mlp import MLPLoss
from metaloss.losses.scaled import Scaled
from metaloss.losses.symbolic import Symbolic
from metaloss.losses.taylor import Taylor

__all__ = [
    "MAE",
    "MSE",
    "ClassReduction",
    "CrossEntropy",
    "Focal",
    "GeneralizedCrossEntropy",
    "LabelSmoothing",
    "LearnedLoss",
    "LogitAdjusted",
    "MLPLoss",
    "Scaled",
    "Symbolic",
    "Taylor",
]
