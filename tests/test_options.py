"""Every option of every part refuses a value of another type, in one line."""

import dataclasses
import math
import typing

import numpy as np
import pytest

from metaloss import SGD, Mixed, registry
from metaloss.config import Settings
from metaloss.core.execution.processes import Processes
from metaloss.data.tensors import TaskOptions
from metaloss.errors import MetalossError
from metaloss.inner import RateSchedule
from metaloss.options import Options
from metaloss.schedules import Replay

BUILT_IN = [
    (group, name)
    for group in registry.GROUPS
    for name in registry.names(group)
    if registry.get(group, name).source.startswith("metaloss ")
]
# Values that no field of these types takes.
WRONG = {
    bool: ["x", None, math.nan, 1],
    int: ["x", None, math.nan, True, 1.5],
    float: ["x", None, math.nan, True, math.inf, 10**400],
    str: [None, 1, True],
    list[int]: ["12", None, 1, ["x"], [True], [1.5]],
    list[float]: ["12", None, 1.0, ["x"], [math.nan]],
    list[str]: ["ab", None, [1]],
}


@pytest.mark.parametrize(("group", "name"), BUILT_IN)
def test_an_option_of_another_type_is_refused_in_one_line(group, name):
    config = registry.get(group, name).config_class
    assert issubclass(config, Options)
    types = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        kinds = typing.get_args(types[field.name]) or (types[field.name],)
        kind = types[field.name] if types[field.name] in WRONG else kinds[0]
        for value in WRONG.get(kind, []) if kind is not typing.Any else []:
            if value is None and type(None) in kinds:
                continue
            with pytest.raises(MetalossError) as refused:
                config(**{field.name: value})
            message = str(refused.value)
            assert f"{field.name}=" in message
            assert "\n" not in message


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(lr="x"), "inner.lr='x': expected a finite number"),
        (lambda: SGD(nesterov="false"), "inner.nesterov='false': expected True or False"),
        (lambda: SGD(milestones=[1, "x"]), "inner.milestones=[1, 'x']: expected a list of whole"),
        (
            lambda: SGD(schedule="cosine"),
            "inner.schedule='cosine': expected RateSchedule['cosine']",
        ),
        (lambda: SGD(schedule="cosin"), "unknown inner.schedule 'cosin': did you mean 'cosine'?"),
        (lambda: SGD(schedule=1), "inner.schedule=1: expected one of RateSchedule.constant, "),
        (lambda: Mixed(rule="adam"), "meta_optimizer.rule='adam': expected Rule['adam']"),
        (lambda: Replay(first=5), "schedule.first=5: expected a value of the type Online"),
        (lambda: Settings(ledger=1), "ledger=1: expected True or False"),
        (lambda: Settings(tf32="no"), "tf32='no': expected True or False or None"),
        (lambda: TaskOptions(lazy="no"), "lazy='no': expected True or False or None"),
        (lambda: Processes(count="2"), "hydra.launcher.count='2': expected a whole number"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(MetalossError) as refused:
        make()
    assert str(refused.value).startswith(message)


def test_what_is_taken():
    rate = SGD(lr=np.float32(0.5), step_size=np.int64(3), momentum=1, milestones=(1, 2))
    assert (rate.lr, rate.step_size) == (0.5, 3)
    assert SGD(schedule=RateSchedule.cosine).schedule is RateSchedule.cosine


def test_a_class_with_types_of_its_own_place_is_not_checked():
    class Kind:
        pass

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Local(Options):
        kind: "Kind | None" = None
        count: "int" = 1

    assert Local(count="x").count == "x"
