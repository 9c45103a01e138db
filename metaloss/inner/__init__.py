"""Inner steps: the model as a function, and inner optimizers."""

from metaloss.inner.model.functional import FunctionalModel
from metaloss.inner.optimizers.adam import Adam, AdamW
from metaloss.inner.optimizers.rates import RateSchedule
from metaloss.inner.optimizers.rmsprop import RMSprop
from metaloss.inner.optimizers.sgd import SGD
from metaloss.inner.problem import InnerProblem

__all__ = ["SGD", "Adam", "AdamW", "FunctionalModel", "InnerProblem", "RMSprop", "RateSchedule"]
