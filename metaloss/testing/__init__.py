"""Contract checks for authors of parts.

Derive from a suite in your tests and define ``make``; pytest then finds the checks. A registered
part is checked by ``metaloss check loss my_loss``, or in Python by :func:`check_part`.

Example:
    >>> from metaloss.losses import MLPLoss
    >>> class TestMyLoss(LossChecks):
    ...     def make(self):
    ...         return MLPLoss(link="softmax")
"""

from metaloss.testing.base import CheckResult, Checks
from metaloss.testing.check import check_part
from metaloss.testing.inner_optimizers import InnerOptimizerChecks
from metaloss.testing.losses import LossChecks
from metaloss.testing.meta_optimizers import MetaOptimizerChecks
from metaloss.testing.models import ModelChecks
from metaloss.testing.schedules import ScheduleChecks
from metaloss.testing.searches import SearchChecks
from metaloss.testing.starts import StartChecks
from metaloss.testing.tasks import TaskChecks
from metaloss.testing.trackers import TrackerChecks

__all__ = [
    "CheckResult",
    "Checks",
    "InnerOptimizerChecks",
    "LossChecks",
    "MetaOptimizerChecks",
    "ModelChecks",
    "ScheduleChecks",
    "SearchChecks",
    "StartChecks",
    "TaskChecks",
    "TrackerChecks",
    "check_part",
]
