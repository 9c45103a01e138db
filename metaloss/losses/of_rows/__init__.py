"""Losses of whole rows: the field's losses for wrong labels and long tails, with a φ to learn."""

from metaloss.losses.of_rows.bi_tempered import BiTempered
from metaloss.losses.of_rows.class_margins import LDAM, BalancedSoftmax
from metaloss.losses.of_rows.correction import ForwardCorrection, confusion
from metaloss.losses.of_rows.meta_weight import MetaWeight
from metaloss.losses.of_rows.row_weights import RowWeights
from metaloss.losses.of_rows.soft_targets import SoftTargets
from metaloss.losses.of_rows.softened import Bootstrap, EarlyLearning
from metaloss.losses.of_rows.symmetric import SymmetricCrossEntropy

__all__ = [
    "LDAM",
    "BalancedSoftmax",
    "BiTempered",
    "Bootstrap",
    "EarlyLearning",
    "ForwardCorrection",
    "MetaWeight",
    "RowWeights",
    "SoftTargets",
    "SymmetricCrossEntropy",
    "confusion",
]
