"""The options of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from metaloss.compose import words as grammar
from metaloss.compose.explain import explain
from metaloss.core.execution import executor
from metaloss.core.execution.executor import ExecutorOptions
from metaloss.errors import MetalossError, check_whole, unknown_name

_CHOICE, _OPTION = "hydra/launcher", "hydra.launcher."


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a comparison.

    Attributes:
        jobs: The number of runs at the same time, each in its own process; None: two, or as
            many as the executor can run.
        threads: The number of threads of each.
        together: The number of seeds of a row in one vectorised program, if its parts support it;
            None: as in the study. The results are those of separate runs, up to rounding.
        reference: The row that the others are tested against; None: as in the study, or the first
            static row.
        metric: The metric to compare, such as ``"test/error"``; None: that of the task.
        arguments: More arguments for every ``metaloss train``, such as ``--plugin FILE.py``.
        executor: Starts the runs; None: processes of this machine.
    """

    jobs: int | None = None
    threads: int = 1
    together: int | None = None
    reference: str | None = None
    metric: str | None = None
    arguments: tuple[str, ...] = ()
    executor: ExecutorOptions | None = None

    def __post_init__(self) -> None:
        for name in ("jobs", "threads"):
            if (value := getattr(self, name)) is not None:
                check_whole(name, value, 1)


def split_launcher(words: Sequence[str]) -> tuple[ExecutorOptions | None, tuple[str, ...]]:
    """Separate the words for Hydra's launcher, which are not for the runs of a study.

    Returns:
        The executor that these words choose, or None; and the other words.

    Raises:
        MetalossError: If a word for Hydra chooses something other than an executor.
    """
    of_hydra = [word for word in words if word.lstrip("+~").startswith(("hydra.", "hydra/"))]
    if not of_hydra:
        return None, tuple(words)
    name, values = "", dict[str, Any]()
    for override in grammar.parse(of_hydra, sweep=True):
        key = override.key_or_group
        if override.is_sweep_override() or override.is_delete():
            raise MetalossError(f"{override.input_line!r}: expected one value")
        if key == _CHOICE and override.value() in executor.names():
            name = str(override.value())
        elif key.startswith(_OPTION):
            values[key.removeprefix(_OPTION)] = override.value()
        else:
            known = " or ".join(f"{_CHOICE}={known}" for known in executor.names())
            raise MetalossError(
                f"{override.input_line!r}: a comparison trains in processes of this machine, or "
                f"with {known}; it has no other settings of Hydra"
            )
    if not name:
        raise MetalossError(f"{of_hydra[0]!r} is for an executor: add {_CHOICE}=ray")
    asked = executor.find(name, f"{_CHOICE}={name}")
    return options_of(asked, values), tuple(word for word in words if word not in of_hydra)


def options_of(asked: type[ExecutorOptions], values: Mapping[str, Any]) -> ExecutorOptions:
    """Return an executor's options with the values from the words.

    Raises:
        MetalossError: If there is no such option, or a value does not fit.
    """
    node = OmegaConf.create({"hydra": {"launcher": OmegaConf.structured(asked)}})
    OmegaConf.set_readonly(node.hydra.launcher, False)
    allowed = [f"{_OPTION}{option.name}" for option in fields(cast(Any, asked))]
    try:
        for key, value in values.items():
            if _OPTION + key not in allowed:
                raise unknown_name("option", _OPTION + key, allowed)
            OmegaConf.update(node, _OPTION + key, value)
        found = OmegaConf.to_object(node.hydra.launcher)
    except OmegaConfBaseException as error:
        raise explain(error) from error
    assert isinstance(found, asked)
    return found
