"""How a comparison trains: how many runs at once, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from metaloss.compose import words as grammar
from metaloss.compose.explain import explain
from metaloss.core.search.ray_tasks import Asked
from metaloss.errors import MetalossError

_CHOICE, _OPTION = "hydra/launcher", "hydra.launcher."


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to compare.

    Attributes:
        jobs: Runs trained at the same time, each in a process of its own; None: two, or on Ray as
            many as the cluster has room for.
        threads: Threads of each.
        together: Seeds of a row in one process, as one vectorised program, where its parts allow;
            None: as the study says. The numbers are those of separate runs, but for rounding.
        reference: The row that the others are tested against; None: as the study says, else the
            first static row.
        metric: What is compared, such as ``"test/error"``; None: the task's own metric.
        arguments: Further words for every ``metaloss train``, such as ``--plugin FILE.py``.
        ray: The Ray that trains, if any, with ``num_cpus`` left to ``threads``.
    """

    jobs: int | None = None
    threads: int = 1
    together: int | None = None
    reference: str | None = None
    metric: str | None = None
    arguments: tuple[str, ...] = ()
    ray: Asked | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("jobs", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise MetalossError(f"{name}={value}: expected a number ≥ 1")


def split_launcher(words: Sequence[str]) -> tuple[Asked | None, tuple[str, ...]]:
    """Take out the words about Hydra's launcher, which a study's runs know nothing of.

    Returns:
        The Ray that they ask for, or None without such words; the other words.

    Raises:
        MetalossError: If they ask for anything but Ray.

    Example:
        >>> split_launcher(["steps=20", "hydra/launcher=ray", "hydra.launcher.address=auto"])
        (Asked(address='auto', num_cpus=1.0, num_gpus=0.0), ('steps=20',))
    """
    of_hydra = [word for word in words if word.lstrip("+~").startswith(("hydra.", "hydra/"))]
    if not of_hydra:
        return None, tuple(words)
    given = grammar.parse(of_hydra, sweep=True)
    for override in given:
        is_ray = override.key_or_group == _CHOICE and _value(override) == "ray"
        if not (is_ray or override.key_or_group.startswith(_OPTION)):
            raise MetalossError(
                f"{override.input_line!r}: a comparison trains in processes of this machine, or "
                f"with {_CHOICE}=ray on Ray; of hydra's other settings it has none"
            )
    if not any(override.key_or_group == _CHOICE for override in given):
        raise MetalossError(f"{of_hydra[0]!r} is for Ray: add {_CHOICE}=ray")
    return _asked(given), tuple(word for word in words if word not in of_hydra)


def _asked(given: Sequence[Override]) -> Asked:
    allowed = [f"{_OPTION}{option.name}" for option in fields(Asked) if option.name != "num_cpus"]
    node = OmegaConf.create({"hydra": {"launcher": OmegaConf.structured(Asked)}})
    OmegaConf.set_readonly(node.hydra.launcher, False)
    for override in given:
        key = override.key_or_group
        if key == _CHOICE:
            continue
        if key == f"{_OPTION}num_cpus":
            raise MetalossError(f"{key}: in a comparison --threads says it")
        if key not in allowed:
            raise MetalossError(f"unknown option {key!r}: (allowed: {', '.join(allowed)})")
        try:
            OmegaConf.update(node, key, _value(override))
        except OmegaConfBaseException as error:
            raise explain(error) from error
    asked = OmegaConf.to_object(node.hydra.launcher)
    assert isinstance(asked, Asked)
    return asked


def _value(override: Override) -> Any:
    if override.is_sweep_override() or override.is_delete():
        raise MetalossError(f"{override.input_line!r}: expected one value")
    return override.value()
