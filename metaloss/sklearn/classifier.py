"""``LearnedLossClassifier``: a classifier for rows with doubtful labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, column_or_1d

from metaloss.data.pipeline import FittedPipeline
from metaloss.errors import MetalossError, unknown_name
from metaloss.sklearn.base import LearnedLossEstimator
from metaloss.types import Link


class LearnedLossClassifier(ClassifierMixin, LearnedLossEstimator):
    """A network that is trained while its loss is learned from trusted rows.

    Rows are numpy arrays, sparse matrices (which become dense), or DataFrames. Numbers are
    standardised. A DataFrame may have texts, dates and missing cells, encoded as by ``task=csv``.

    Args:
        steps: The number of training steps.
        inner_lr: The learning rate of the network; None: the default of ``inner.lr``.
        batch_size: Rows of a training batch.
        model: The name of a model; ``metaloss list model`` shows all.
        loss: The name of a loss.
        schedule: ``online``, ``offline`` or ``static``.
        options: Further options of `metaloss.train` by key, such as ``{"model.hidden": [50]}``.
        trusted_fraction: The share of rows that is held out as trusted rows if ``fit`` gets no
            ``trusted`` rows, in (0, 1); stratified by class.
        class_weight: As in scikit-learn: weights by class, others 1; or ``"balanced"``, n / (C n_c)
            by the rows that train. They count in training and in judging the loss.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``auto``.
        verbose: Whether to show progress.
        random_state: An int, a ``RandomState`` or None, as everywhere in scikit-learn.

    Attributes:
        classes_: (C,) the classes.
        n_features_in_: The number of columns.
        n_iter_: The number of training steps.
        weights_: The weights of the network by name.
        summary_: The summary of the run, as `metaloss.Summary`.
        history_: Steps (n,) and values (n,) of each number in the run's journal.
        loss_curves_: The learned loss during training: ``step`` (n,), ``grid`` (G,) predictions,
            and its values (n, G) for each target, by name.
        suspects_: A DataFrame with a row for each row of ``X``, in the same order and with its
            index: the doubt in the label ``score`` (higher: more doubtful), the ``suggested``
            label, and what the score is made of, as in `metaloss.Run`'s ``suspects``. NaN for
            rows that did not train the network, since they were held out or have weight 0.

    Raises:
        MetalossError: At ``fit``, if an option is invalid; a ``ValueError``.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(200, 2))
        >>> truth = np.where(X[:, 0] > 0, "yes", "no")
        >>> given = np.where(rng.random(200) < 0.3, "no", truth)  # 30 % of the labels are "no"
        >>> model = LearnedLossClassifier(steps=100, inner_lr=0.1, random_state=0)
        >>> model = model.fit(X, given, trusted=(X[:40], truth[:40]))
        >>> model.predict([[2.0, 0.0], [-2.0, 0.0]])
        array(['yes', 'no'], dtype='<U3')
        >>> doubtful = model.suspects_.sort_values("score", ascending=False).index[:20]
        >>> bool((given != truth)[doubtful].mean() > 0.8)
        True
    """

    _link = Link.softmax

    def __init__(
        self,
        *,
        steps: int = 2000,
        inner_lr: float | None = None,
        batch_size: int = 64,
        model: str = "mlp",
        loss: str = "mlp",
        schedule: str = "online",
        options: Mapping[str, Any] | None = None,
        trusted_fraction: float = 0.15,
        class_weight: Mapping[Any, float] | str | None = None,
        device: str = "cpu",
        verbose: bool = False,
        random_state: Any = None,
    ) -> None:
        super().__init__(
            steps=steps,
            inner_lr=inner_lr,
            batch_size=batch_size,
            model=model,
            loss=loss,
            schedule=schedule,
            options=options,
            trusted_fraction=trusted_fraction,
            device=device,
            verbose=verbose,
            random_state=random_state,
        )
        self.class_weight = class_weight

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, trusted: Any = None) -> Self:
        """Train on rows ``X`` (n, D) with classes ``y`` (n,).

        Args:
            X: The training rows.
            y: Their classes, which may be wrong.
            sample_weight: (n,) weights ≥ 0: a row with weight 2 is drawn twice as often.
            trusted: A pair of rows (m, D) and their classes (m,), for the meta-batches; they do not
                train the network. None: a share of ``X`` is held out.

        Raises:
            MetalossError: If there is one class only, or rows do not fit; a ``ValueError``.
        """
        rows, labels = self._checked(X, reset=True), _classes(y)
        check_consistent_length(rows, labels)
        given = self._trusted(trusted, _classes)
        every = labels if given is None else np.concatenate([labels, given[1]])
        self.classes_ = np.unique(every)
        if len(np.unique(labels)) < 2:
            raise MetalossError("y has one class; expected two or more")
        places = np.searchsorted(self.classes_, labels)
        if given is not None:
            given = given[0], np.searchsorted(self.classes_, given[1])
        return self._fit(rows, places, sample_weight, given)

    def _class_weights(self) -> Any:
        if not isinstance(self.class_weight, Mapping):
            return self.class_weight
        known = self.classes_.tolist()
        for name in self.class_weight:
            if name not in known:
                raise unknown_name("class in class_weight", str(name), [str(one) for one in known])
        return [float(self.class_weight.get(name, 1.0)) for name in known]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class, (n, C), in the order of ``classes_``."""
        return self._outputs(X)[1].softmax(1).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each row, (n,)."""
        places = self._outputs(X)[1].argmax(1).numpy()
        return self.classes_[places]

    def _named(self, suggested: np.ndarray) -> np.ndarray:
        missing = np.isnan(suggested)
        names = self.classes_[np.where(missing, 0, suggested).astype(int)]
        if missing.any():
            names = names.astype(object)
            names[missing] = None
        return names

    def _pipeline(self, encode: Any, outputs: int, targets: np.ndarray) -> FittedPipeline:
        return FittedPipeline(inputs=encode, link=self._link, outputs=outputs, input_shape=())


def _classes(y: Any) -> np.ndarray:
    labels = column_or_1d(y, warn=True)
    check_classification_targets(labels)
    return labels
