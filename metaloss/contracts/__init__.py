"""The interfaces of the exchangeable parts. A part imports these, and no other part.

Losses and models are modules (``nn.Module``), trackers are ordinary classes. Every other part is a
frozen, keyword-only dataclass, and its fields are its options.
"""

from metaloss.contracts.meta_optimizers import GradientMetaOptimizer, MetaOptimizer
from metaloss.contracts.schedules import MetaBatch, Plan, Progress, Schedule, TrainOn, Verdict
from metaloss.contracts.searches import Candidate, Search, SearchMetaOptimizer
from metaloss.contracts.starts import Report, Start
from metaloss.contracts.tasks import Pipeline, Task, TaskDependent, TaskSource
from metaloss.contracts.trackers import (
    Event,
    Logged,
    LossCurves,
    Noticed,
    RunFinished,
    RunStarted,
    Table,
    Tracker,
)
from metaloss.inner.optimizers.base import InnerOptimizer

__all__ = [
    "Candidate",
    "Event",
    "GradientMetaOptimizer",
    "InnerOptimizer",
    "Logged",
    "LossCurves",
    "MetaBatch",
    "MetaOptimizer",
    "Noticed",
    "Pipeline",
    "Plan",
    "Progress",
    "Report",
    "RunFinished",
    "RunStarted",
    "Schedule",
    "Search",
    "SearchMetaOptimizer",
    "Start",
    "Table",
    "Task",
    "TaskDependent",
    "TaskSource",
    "Tracker",
    "TrainOn",
    "Verdict",
]
