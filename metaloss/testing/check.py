"""Contract checks of a part by its registered name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from metaloss import registry
from metaloss.contracts import SearchMetaOptimizer
from metaloss.errors import MetalossError
from metaloss.registry import Part
from metaloss.testing.base import CheckResult, Checks, given, run
from metaloss.testing.inner_optimizers import InnerOptimizerChecks
from metaloss.testing.losses import LossChecks
from metaloss.testing.meta_optimizers import MetaOptimizerChecks
from metaloss.testing.models import ModelChecks
from metaloss.testing.schedules import ScheduleChecks
from metaloss.testing.searches import SearchChecks
from metaloss.testing.starts import StartChecks
from metaloss.testing.tasks import TaskChecks
from metaloss.testing.trackers import TrackerChecks
from metaloss.types import Link

SUITES: dict[str, type[Checks]] = {
    "task": TaskChecks,
    "model": ModelChecks,
    "loss": LossChecks,
    "schedule": ScheduleChecks,
    "start": StartChecks,
    "meta_optimizer": MetaOptimizerChecks,
    "inner": InnerOptimizerChecks,
    "tracker": TrackerChecks,
    # A meta-optimizer without gradients.
    "search": SearchChecks,
}

# The shapes of rows that models are made for: features, a signal with channels, images.
INPUT_SHAPES = ((10,), (3, 12), (1, 8, 8), (3, 12, 12))


def check_part(group: str, name: str, options: Any = None) -> list[CheckResult]:
    """Run the contract checks on one registered part.

    A loss is checked with every link that it supports, and a model with every shape of rows.

    Args:
        group: Such as ``"loss"``.
        name: The registered name.
        options: An instance of the part's options class; None: the defaults.

    Returns:
        One result for each check.

    Raises:
        MetalossError: If there is no such part, or if it cannot be made.

    Example:
        >>> results = check_part("schedule", "online")
        >>> all(result.passed for result in results)
        True
        >>> results[0].name
        'options are typed and explained'
    """
    part = registry.get(group, name)
    config = part.config_class() if options is None else options
    suite = SUITES["search" if issubclass(part.cls, SearchMetaOptimizer) else group]
    results, refused = [], []
    for label, make, attributes in _makers(part, config):
        try:
            make()
        except MetalossError as error:
            refused.append(error)
            continue
        results += run(given(suite, make, **attributes), label=label)
    if not results:
        raise refused[0]
    return results


def _makers(part: Part, config: Any) -> Iterator[tuple[str, Callable[[], Any], dict[str, Any]]]:
    """Yield the ways to make a part: a label, a constructor, attributes of the suite."""
    if part.group == "loss":
        for link in Link:
            yield link.name, lambda link=link: part.build(config, link=link), {}  # type: ignore[misc]
    elif part.group == "model":
        tokens = getattr(part.cls, "takes_tokens", False)
        for shape in INPUT_SHAPES:
            known = {"input_shape": shape, "outputs": 3}
            label = "×".join(map(str, shape))
            yield label, partial(part.build, config, **known), {**known, "tokens": tokens}
    else:
        yield "", lambda: part.build(config), {}
