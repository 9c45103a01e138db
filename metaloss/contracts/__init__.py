"""The interfaces of the exchangeable parts. A part imports these, never another part.

Except for losses and models (``nn.Module``) and trackers, every part is a frozen, keyword-only
dataclass: its fields are its options, in the config file and in Python alike.
"""

from metaloss.contracts.meta_optimizers import GradientMetaOptimizer, MetaOptimizer
from metaloss.contracts.schedules import MetaBatch, Plan, Progress, Schedule, TrainOn
from metaloss.contracts.searches import Candidate, Search, SearchMetaOptimizer
from metaloss.contracts.starts import Report, Start
from metaloss.contracts.tasks import Task, TaskDependent, TaskSource
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
]
