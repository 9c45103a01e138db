"""metaloss: learn the loss function itself, online or offline.

The names here are the public API; everything else may move between minor versions.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Where each public name lives. They are imported on first use, so that `metaloss --help` and the
# checks of a config need not wait for torch.
_HOMES = {
    "Learner": "metaloss.core.learner.learner",
    "MetalossError": "metaloss.errors",
    "Run": "metaloss.core.runs.results",
    "Task": "metaloss.contracts",
    "export_run": "metaloss.core.runs.results",
    "imitate": "metaloss.starts.imitate",
    "keep_freed_memory": "metaloss.core.parts.allocator",
    "load_loss": "metaloss.losses.export",
    "meta_gradient": "metaloss.core.learner.meta_gradient",
    "register": "metaloss.registry",
    "resume_group": "metaloss.core.runs.seeds",
    "resume_run": "metaloss.core.runs.run",
    "task_from_data": "metaloss.data.tensors",
    "train": "metaloss.core.runs.run",
    "train_seeds": "metaloss.core.runs.seeds",
}

if TYPE_CHECKING:
    from metaloss.contracts import Task
    from metaloss.core.learner.learner import Learner
    from metaloss.core.learner.meta_gradient import meta_gradient
    from metaloss.core.parts.allocator import keep_freed_memory
    from metaloss.core.runs.results import Run, export_run
    from metaloss.core.runs.run import resume_run, train
    from metaloss.core.runs.seeds import resume_group, train_seeds
    from metaloss.data.tensors import task_from_data
    from metaloss.errors import MetalossError
    from metaloss.losses.export import load_loss
    from metaloss.registry import register
    from metaloss.starts.imitate import imitate

__all__ = [
    "Learner",
    "MetalossError",
    "Run",
    "Task",
    "export_run",
    "imitate",
    "keep_freed_memory",
    "load_loss",
    "meta_gradient",
    "register",
    "resume_group",
    "resume_run",
    "task_from_data",
    "train",
    "train_seeds",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'metaloss' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
