"""metaloss: learn the loss function itself, online or offline.

The names in ``__all__`` are the public API, together with the parts' classes and options, the
contracts in `metaloss.contracts`, the checks in `metaloss.testing` and the estimators in
`metaloss.sklearn`. Everything else may move between minor versions.
"""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Where each public name lives. They are imported on first use, so that `metaloss --help` and the
# checks of a config need not wait for torch.
_HOMES = {
    "SGD": "metaloss.inner.optimizers.sgd",
    "Adam": "metaloss.inner.optimizers.adam",
    "AdamW": "metaloss.inner.optimizers.adam",
    "FiniteDifference": "metaloss.meta_optimizers.finite_difference",
    "Higher": "metaloss.meta_optimizers.higher",
    "Imitate": "metaloss.starts.imitate",
    "LearnedLoss": "metaloss.losses.base",
    "Learner": "metaloss.core.learner.learner",
    "LossSchedule": "metaloss.losses.loss_schedule",
    "MLPLoss": "metaloss.losses.mlp",
    "MetalossError": "metaloss.errors",
    "Mixed": "metaloss.meta_optimizers.mixed",
    "ParamGroups": "metaloss.inner.optimizers.param_groups",
    "RMSprop": "metaloss.inner.optimizers.rmsprop",
    "Run": "metaloss.core.runs.results",
    "Scaled": "metaloss.losses.scaled",
    "Summary": "metaloss.core.runs.summary",
    "Symbolic": "metaloss.losses.symbolic.symbolic",
    "Task": "metaloss.contracts",
    "TaskOptions": "metaloss.data.tensors",
    "Taylor": "metaloss.losses.taylor",
    "TorchOpt": "metaloss.meta_optimizers.torchopt",
    "export_run": "metaloss.core.runs.results",
    "imitate": "metaloss.starts.imitate",
    "load_loss": "metaloss.losses.export",
    "load_loss_schedule": "metaloss.losses.loss_schedule",
    "load_run": "metaloss.core.runs.load",
    "meta_gradient": "metaloss.core.learner.meta_gradient",
    "register": "metaloss.registry",
    "resume_group": "metaloss.core.runs.run",
    "resume_run": "metaloss.core.runs.run",
    "task_from_data": "metaloss.data.tensors",
    "train": "metaloss.core.runs.run",
    "train_seeds": "metaloss.core.runs.run",
}
# Packages that are public: `metaloss.sklearn.LearnedLossClassifier`.
_PACKAGES = ("sklearn", "testing")
# Names that were public here, and where they are now. They work for one version.
_MOVED = {"keep_freed_memory": "metaloss.allocator"}

if TYPE_CHECKING:
    from metaloss.contracts import Task
    from metaloss.core.learner.learner import Learner
    from metaloss.core.learner.meta_gradient import meta_gradient
    from metaloss.core.runs.load import load_run
    from metaloss.core.runs.results import Run, export_run
    from metaloss.core.runs.run import resume_group, resume_run, train, train_seeds
    from metaloss.core.runs.summary import Summary
    from metaloss.data.tensors import TaskOptions, task_from_data
    from metaloss.errors import MetalossError
    from metaloss.inner.optimizers.adam import Adam, AdamW
    from metaloss.inner.optimizers.param_groups import ParamGroups
    from metaloss.inner.optimizers.rmsprop import RMSprop
    from metaloss.inner.optimizers.sgd import SGD
    from metaloss.losses.base import LearnedLoss
    from metaloss.losses.export import load_loss
    from metaloss.losses.loss_schedule import LossSchedule, load_loss_schedule
    from metaloss.losses.mlp import MLPLoss
    from metaloss.losses.scaled import Scaled
    from metaloss.losses.symbolic.symbolic import Symbolic
    from metaloss.losses.taylor import Taylor
    from metaloss.meta_optimizers.finite_difference import FiniteDifference
    from metaloss.meta_optimizers.higher import Higher
    from metaloss.meta_optimizers.mixed import Mixed
    from metaloss.meta_optimizers.torchopt import TorchOpt
    from metaloss.registry import register
    from metaloss.starts.imitate import Imitate, imitate

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "FiniteDifference",
    "Higher",
    "Imitate",
    "LearnedLoss",
    "Learner",
    "LossSchedule",
    "MLPLoss",
    "MetalossError",
    "Mixed",
    "ParamGroups",
    "RMSprop",
    "Run",
    "Scaled",
    "Summary",
    "Symbolic",
    "Task",
    "TaskOptions",
    "Taylor",
    "TorchOpt",
    "export_run",
    "imitate",
    "load_loss",
    "load_loss_schedule",
    "load_run",
    "meta_gradient",
    "register",
    "resume_group",
    "resume_run",
    "task_from_data",
    "train",
    "train_seeds",
]


def __getattr__(name: str) -> Any:
    if name in _MOVED:
        home = _MOVED[name]
        message = f"metaloss.{name} is now {home}.{name}; the old name works until metaloss 0.3"
        warnings.warn(message, FutureWarning, stacklevel=2)
        return getattr(import_module(home), name)
    if name in _PACKAGES:
        return import_module(f"metaloss.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'metaloss' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_PACKAGES})
