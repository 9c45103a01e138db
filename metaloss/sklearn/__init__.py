"""Estimators for scikit-learn: models that are trained while their loss is learned.

They are used like any other estimator: in pipelines, in `cross_val_score`, in `GridSearchCV`.
"""

from metaloss.sklearn.classifier import LearnedLossClassifier
from metaloss.sklearn.regressor import LearnedLossRegressor

__all__ = ["LearnedLossClassifier", "LearnedLossRegressor"]
