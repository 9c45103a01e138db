"""What the estimators share: from rows to a run, and what is kept of it."""

from __future__ import annotations

import re
import tempfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import (
    _check_sample_weight,
    check_consistent_length,
    check_is_fitted,
    validate_data,
)
from torch import Tensor, nn

from metaloss import registry
from metaloss.compose import compose
from metaloss.compose.mapping import flat, to_overrides
from metaloss.compose.publish import DEFAULTS
from metaloss.core.runs.results import Run
from metaloss.core.runs.run import train
from metaloss.core.storage.run_folder import read_run
from metaloss.core.training.evaluate import outputs_of
from metaloss.data.checks import number
from metaloss.data.pipeline import FittedPipeline, pipeline_from_dict
from metaloss.data.tensors import TaskOptions, task_from_data
from metaloss.errors import MetalossError
from metaloss.inner.model.functional import FunctionalModel
from metaloss.sklearn.rows import Rows, counted, dense, encoding, held_out, is_table
from metaloss.sklearn.suspects import suspects_in_order
from metaloss.types import InnerState, Link

_FIXED = {"task", "output", "seed", "seeds", "tracker", "device", "steps", "batch_size"}


class LearnedLossEstimator(BaseEstimator, ABC):
    """The base class of both estimators; see `LearnedLossClassifier`."""

    _link: Link

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
        device: str = "cpu",
        verbose: bool = False,
        random_state: Any = None,
    ) -> None:
        self.steps = steps
        self.inner_lr = inner_lr
        self.batch_size = batch_size
        self.model = model
        self.loss = loss
        self.schedule = schedule
        self.options = options
        self.trusted_fraction = trusted_fraction
        self.device = device
        self.verbose = verbose
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        """Return what scikit-learn wants to know: rows may be sparse."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    # ---------------------------------------------------------------------------- training

    def _fit(self, inputs: Any, targets: np.ndarray, weights: Any, trusted: Any) -> Self:
        """Train on checked rows. ``trusted``: checked rows with targets, or None."""
        number("trusted_fraction", self.trusted_fraction, 0, 1)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        if weights is not None:
            weights = _check_sample_weight(weights, inputs, ensure_non_negative=True)
        rows, places = counted(inputs, targets, weights)
        classes = self._link is Link.softmax
        if trusted is None:
            rng = np.random.default_rng(seed)
            rows, chosen = held_out(rows, self.trusted_fraction, rng, stratified=classes)
        else:
            chosen = counted(trusted[0], trusted[1], None)[0]
        self._train(rows.repeated(), chosen.repeated(), seed, places)
        return self

    def _train(self, rows: Rows, trusted: Rows, seed: int, places: np.ndarray) -> None:
        encode = encoding(rows.inputs)
        outputs = len(self.classes_) if self._link is Link.softmax else 1
        pipeline = self._pipeline(encode, outputs, rows.targets)
        made = []
        for part in (rows, trusted):
            encoded = torch.from_numpy(np.ascontiguousarray(encode(encode.taken(part.inputs))))
            made.append((encoded, pipeline.targets(part.targets)))
        pipeline = replace(pipeline, input_shape=tuple(made[0][0].shape[1:]))
        options = TaskOptions(link=self._link, outputs=outputs, class_weights=self._class_weights())
        task = task_from_data(*made, name="estimator", options=options)
        words = self._words()
        settings = {"seed": seed, "tracker": ["console"] if self.verbose else []}
        with tempfile.TemporaryDirectory() as folder, _without_the_folder(folder):
            place = {**settings, "output": str(Path(folder) / "run")}
            task = replace(task, pipeline=pipeline)
            run = train([*words, *to_overrides(place)], task=task)
            self._keep(run, pipeline, words)
            self._suspects = suspects_in_order(run, task, rows.numbers, places)

    def _class_weights(self) -> Any:
        """Return the weights of the classes, as `TaskOptions` takes them."""
        return None

    def _words(self) -> list[str]:
        if not isinstance(self.options, Mapping | None):
            raise MetalossError(
                f"options={self.options!r}: expected a dictionary of keys and values, such as "
                '{"model.hidden": [50]}'
            )
        keys = [key.lstrip("+") for key, _ in flat(self.options or {})]
        if taken := sorted({key for key in keys if key.partition(".")[0] in _FIXED}):
            raise MetalossError(
                f"options: {', '.join(taken)} cannot be set here; expected keys such as "
                "model.hidden, loss.hidden or schedule.meta_batch"
            )
        chosen = {"model": self.model, "loss": self.loss, "schedule": self.schedule}
        rate = {} if self.inner_lr is None else {"inner.lr": self.inner_lr}
        for key in keys:
            if key in chosen or key in rate:
                name = key.replace(".", "_")
                raise MetalossError(f"options: {key} is the argument {name}: expected it there")
        for group, name in chosen.items():
            if not isinstance(name, str):
                raise MetalossError(
                    f"{group} is of type {type(name).__name__}: expected a name, such as "
                    f"{DEFAULTS[group]!r}; objects of your own are trained by metaloss.train"
                )
        # The defaults are left out, so that a preset, or the recording of a replay, may choose.
        named = {group: name for group, name in chosen.items() if name != DEFAULTS[group]}
        numbers = {"steps": self.steps, "batch_size": self.batch_size, "device": self.device}
        return [
            *to_overrides({"compile": "off", **named, **numbers, **rate}),
            *to_overrides(self.options or {}),
        ]

    def _keep(self, run: Run, pipeline: FittedPipeline, words: list[str]) -> None:
        """Set the attributes: arrays, texts and numbers only."""
        if run.summary.status == "diverged":
            warnings.warn("the run has diverged", ConvergenceWarning, stacklevel=4)
        content = read_run(run.folder)
        self.n_iter_ = run.summary.steps
        self.summary_ = run.summary.as_dict()
        self.weights_ = {name: value.numpy() for name, value in run.model.state_dict().items()}
        self._fitted_words = words
        self._fitted_pipeline = pipeline.to_dict()
        self.history_ = {name: content.series(name) for name in content.names()}
        curves = content.curves
        self.loss_curves_ = {"step": np.array([row.step for row in curves])}
        if curves:
            self.loss_curves_["grid"] = curves[0].grid
            for label in curves[0].curves:
                self.loss_curves_[label] = np.stack([row.curves[label] for row in curves])

    @property
    def suspects_(self) -> pd.DataFrame:
        """How doubtful the label of each training row is, in the order of the rows."""
        check_is_fitted(self)
        if self._suspects is None:
            raise AttributeError(
                "suspects_: the run kept no ledger of the training rows (ledger=false, or "
                "schedule.train_on=validation)"
            )
        columns: dict[str, Any] = {**self._suspects}
        columns["suggested"] = self._named(columns["suggested"])
        return pd.DataFrame(columns, index=self._row_names)

    # -------------------------------------------------------------------------- prediction

    def _outputs(self, inputs: Any) -> tuple[FittedPipeline, Tensor]:
        """Return the pipeline, and the raw outputs (n, C) in float64, on the CPU."""
        check_is_fitted(self)
        pipeline = pipeline_from_dict(self._fitted_pipeline)
        if pipeline.inputs.kind == "table":
            validate_data(self, inputs, reset=False, skip_check_array=True)
            encoded = pipeline.encode(inputs)
        else:
            checked = validate_data(self, inputs, reset=False, accept_sparse=True)
            encoded = pipeline.encode(dense(checked))
        # In double precision, so that the outputs of a row hardly depend on the other rows.
        model = FunctionalModel(self._module(pipeline).double())
        return pipeline, outputs_of(model, InnerState(*model.state(), None), encoded.double())

    def _module(self, pipeline: FittedPipeline) -> nn.Module:
        chosen = compose(self._fitted_words).model
        shape = {"input_shape": pipeline.input_shape, "outputs": pipeline.outputs}
        module = registry.get("model", chosen.name).build(chosen.options, **shape)
        state = {name: torch.from_numpy(value.copy()) for name, value in self.weights_.items()}
        module.load_state_dict(state)
        return module

    # ------------------------------------------------------------------------------- rows

    def _checked(self, inputs: Any, *, reset: bool) -> Any:
        """Return rows as a DataFrame with texts or gaps, or as an array in float64."""
        if reset:
            self._row_names = np.asarray(inputs.index) if isinstance(inputs, pd.DataFrame) else None
        if is_table(inputs):
            validate_data(self, inputs, reset=reset, skip_check_array=True)
            return inputs.reset_index(drop=True)
        least = 2 if reset else 1
        found = validate_data(
            self, inputs, reset=reset, accept_sparse=True, ensure_min_samples=least
        )
        return dense(found)

    def _trusted(self, given: Any, read: Callable[[Any], np.ndarray]) -> Any:
        """Return checked trusted rows and their targets, which ``read`` checks; or None."""
        if given is None:
            return None
        rows, targets = self._checked(given[0], reset=False), read(given[1])
        check_consistent_length(rows, targets)
        return rows, targets

    def _named(self, suggested: np.ndarray) -> np.ndarray:
        """Return suggested targets (n,) as the user gave them; NaN: none."""
        return suggested

    @abstractmethod
    def _pipeline(self, encode: Any, outputs: int, targets: np.ndarray) -> FittedPipeline:
        """Return what encodes rows and targets; ``targets``: those of the training rows."""


@contextmanager
def _without_the_folder(folder: str) -> Iterator[None]:
    """Leave the folder of the run out of errors: it is gone when they are read."""
    try:
        yield
    except MetalossError as error:
        place = rf"{re.escape(folder)}[^\s:,;]*"
        text = re.sub(place, "the run", re.sub(f"^{place}: ", "", str(error)))
        if text == str(error):
            raise
        raise type(error)(text) from error
