"""scikit-learn's own checks of estimators pass, without an exception."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from metaloss.sklearn import LearnedLossClassifier, LearnedLossRegressor

# A loss that needs no start, and as few steps as the checks of accuracy allow.
QUICK = {"start": "keep", "model.hidden": [20]}


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(
    [
        cls(loss="scaled", steps=12, inner_lr=0.3, options=QUICK, random_state=0)
        for cls in (LearnedLossClassifier, LearnedLossRegressor)
    ]
)
def test_scikit_learn_s_checks_pass(estimator, check):
    check(estimator)
