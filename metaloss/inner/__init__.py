"""How θ moves: the functional model and pure inner optimizers."""

from metaloss.inner.adam import Adam, AdamW
from metaloss.inner.functional import FunctionalModel
from metaloss.inner.problem import InnerProblem
from metaloss.inner.rates import RateSchedule
from metaloss.inner.rmsprop import RMSprop
from metaloss.inner.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "FunctionalModel", "InnerProblem", "RMSprop", "RateSchedule"]
