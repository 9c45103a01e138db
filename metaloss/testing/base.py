"""The base class of all suites, and helpers for checks."""

from __future__ import annotations

import copy
import dataclasses
import random
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor
from torch.utils import _pytree as pytree


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """The result of one check.

    Attributes:
        name: The name of the check.
        passed: Whether it passed.
        message: Why it failed; empty if it passed.
    """

    name: str
    passed: bool
    message: str = ""


class Checks:
    """A suite of checks: ``make`` returns the part, and every method ``test_...`` is a check.

    pytest collects the checks of a subclass whose name begins with ``Test``. pytest itself is not
    needed to run them.
    """

    def make(self) -> Any:
        """Return a new part."""
        raise TypeError(f"{type(self).__name__} must define make()")

    def made(self, seed: int = 0) -> Any:
        """Return a new part; ``seed`` determines what its constructor draws."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self.make()

    def test_options_are_typed_and_explained(self) -> None:
        """Options are a frozen, keyword-only dataclass with help texts, which a config can hold."""
        cls = type(self.made())
        config = getattr(cls, "Config", None) or cls
        require(dataclasses.is_dataclass(config), f"{cls.__name__} has no options dataclass")
        kind = config.__dataclass_params__
        require(kind.frozen, f"{config.__name__} is not frozen: @dataclass(frozen=True)")
        for field in dataclasses.fields(config):
            where = f"{config.__name__}.{field.name}"
            require(field.kw_only is True, f"{where} is not keyword-only: @dataclass(kw_only=True)")
            require(
                bool(field.metadata.get("help")), f"{where} has no help: field(metadata={{...}})"
            )
        try:
            schema = OmegaConf.structured(config)
        except OmegaConfBaseException as error:
            raise AssertionError(f"{config.__name__}: {str(error).splitlines()[0]}") from error
        OmegaConf.set_readonly(schema, False)
        require(
            OmegaConf.to_object(schema) == config(),
            f"{config.__name__} does not come back equal from a config",
        )


def run(suite: Checks, *, label: str = "") -> list[CheckResult]:
    """Run every check of a suite; ``label`` is appended to the checks' names."""
    methods = [name for name in _in_order(type(suite)) if name.startswith("test_")]
    return [run_check(suite, method, label=label) for method in methods]


def run_check(suite: Checks, method: str, *, label: str = "") -> CheckResult:
    """Run one check of a suite."""
    name = method.removeprefix("test_").replace("_", " ") + (f" [{label}]" if label else "")
    try:
        getattr(suite, method)()
    except AssertionError as error:
        return CheckResult(name=name, passed=False, message=_one_line(error))
    except Exception as error:  # a part may raise anything
        message = f"{type(error).__name__}: {_one_line(error)}"
        return CheckResult(name=name, passed=False, message=message)
    return CheckResult(name=name, passed=True)


def given(suite: type[Checks], make: Callable[[], Any], **attributes: Any) -> Checks:
    """Return a suite for the part that ``make`` returns; ``attributes`` replace the suite's."""
    members = {"make": lambda self: make(), **attributes}
    return type(suite.__name__, (suite,), members)()


def require(condition: bool | Tensor, message: str) -> None:
    """Raise AssertionError with ``message`` unless ``condition`` holds, even under ``-O``."""
    if not bool(condition):
        raise AssertionError(message)


def require_close(
    found: Any, expected: Any, message: str, *, rtol: float = 1e-7, atol: float = 1e-9
) -> None:
    """Raise AssertionError unless two trees of tensors agree in structure, type and value."""
    try:
        torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)
    except AssertionError as error:
        raise AssertionError(f"{message}: {_one_line(error)}") from error


def require_finite(tree: Any, what: str) -> None:
    """Raise AssertionError if a tensor in the tree holds NaN or an infinity."""
    for leaf in tensors_in(tree):
        bad = int((~leaf.isfinite()).sum())
        require(bad == 0, f"{what}: {bad} of {leaf.numel()} values are NaN or infinite")


@contextmanager
def nothing_changes(what: str, *trees: Any) -> Iterator[None]:
    """Require that a block changes neither the tensors in ``trees`` nor any global state."""
    watched = tensors_in(trees)
    before = [leaf.detach().clone() for leaf in watched]
    flags = [leaf.requires_grad for leaf in watched]
    state = _global_state()
    yield
    for leaf, old, flag in zip(watched, before, flags, strict=True):
        same = torch.equal(leaf.detach().nan_to_num(), old.nan_to_num())
        require(same, f"{what} changes a tensor of its arguments in place")
        require(leaf.requires_grad == flag, f"{what} changes requires_grad of an argument")
    for name, value in _global_state().items():
        require(_equal(value, state[name]), f"{what} changes {name}")


def tensors_in(tree: Any) -> list[Tensor]:
    """Return the tensors among the leaves, and the parameters and buffers of modules."""
    leaves = []
    for leaf in pytree.tree_leaves(tree):
        if isinstance(leaf, torch.nn.Module):
            leaves += [*leaf.parameters(), *leaf.buffers()]
        elif isinstance(leaf, Tensor):
            leaves.append(leaf)
    return leaves


def draws(seed: int) -> torch.Generator:
    """Return a new random generator."""
    return torch.Generator().manual_seed(seed)


def _global_state() -> dict[str, Any]:
    return {
        "torch's global random state": torch.get_rng_state(),
        "numpy's global random state": copy.deepcopy(np.random.get_state()),  # noqa: NPY002
        "Python's global random state": random.getstate(),
        "torch's default dtype": torch.get_default_dtype(),
        "torch's default device": torch.get_default_device(),
        "whether gradients are recorded": torch.is_grad_enabled(),
        "whether algorithms are deterministic": torch.are_deterministic_algorithms_enabled(),
        "torch's number of threads": torch.get_num_threads(),
    }


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    return bool(np.array_equal(a, b))


def _in_order(cls: type) -> list[str]:
    """Return the names of all attributes in order of definition, base classes first."""
    return list(dict.fromkeys(name for base in reversed(cls.__mro__) for name in vars(base)))


def _one_line(error: BaseException) -> str:
    return textwrap.shorten(str(error), 400, placeholder=" …") or type(error).__name__
