"""``LearnedLossRegressor``: a regressor for rows with doubtful values."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils.validation import check_array, check_consistent_length, column_or_1d

from metaloss.data.pipeline import FittedPipeline
from metaloss.data.scaling import fit_scaling
from metaloss.errors import MetalossError
from metaloss.sklearn.base import LearnedLossEstimator
from metaloss.types import Link


class LearnedLossRegressor(RegressorMixin, LearnedLossEstimator):
    """A network for one number that is trained while its loss is learned from trusted rows.

    Rows, arguments and attributes are those of `LearnedLossClassifier`, without classes. Values are
    standardised for training, and predicted in their own units.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(200, 2))
        >>> y = 100 + 10 * X[:, 0]
        >>> model = LearnedLossRegressor(steps=200, random_state=0).fit(X, y)
        >>> bool(model.score(X, y) > 0.9)
        True
    """

    _link = Link.identity

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, trusted: Any = None) -> Self:
        """Train on rows ``X`` (n, D) with values ``y`` (n,).

        Args:
            X: The training rows.
            y: Their values, which may be wrong.
            sample_weight: (n,) weights ≥ 0: a row with weight 2 is drawn twice as often.
            trusted: A pair of rows (m, D) and their values (m,), for the meta-batches; they do not
                train the network. None: a share of ``X`` is held out.
        """
        rows, values = self._checked(X, reset=True), _values(y)
        check_consistent_length(rows, values)
        return self._fit(rows, values, sample_weight, self._trusted(trusted, _values))

    def predict(self, X: Any) -> np.ndarray:
        """Return the predicted value of each row, (n,)."""
        pipeline, outputs = self._outputs(X)
        return pipeline.in_units(outputs).numpy()[:, 0]

    def _pipeline(self, encode: Any, outputs: int, targets: np.ndarray) -> FittedPipeline:
        scaling = fit_scaling(targets[:, None].astype(np.float64), per_feature=True)
        return FittedPipeline(
            inputs=encode, link=self._link, outputs=outputs, input_shape=(), scaling=scaling
        )


def _values(y: Any) -> np.ndarray:
    if y is None:
        raise MetalossError("fit requires y to be passed, but the target y is None")
    values = check_array(y, ensure_2d=False, dtype="numeric", input_name="y")
    return column_or_1d(values, warn=True).astype(np.float64)
