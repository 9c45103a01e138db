"""Pure functions of tensors as compiled programs: traced once for each form, then reused.

A step has backward passes, a forward-mode pass and functions with derivatives of their own, which
the front end of the compiler does not support. So a function is traced below autograd, where all of
these are plain operations on tensors, and the compiler gets the whole graph.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils import _pytree as pytree

from metaloss.core.compilation.passes.algebra import simplify_products
from metaloss.core.compilation.passes.cse import merge_repeated
from metaloss.core.compilation.passes.row_reuse import reuse_rows
from metaloss.errors import MetalossError
from metaloss.inner.dispatch import dispatch_kept


class Program:
    """A function for one structure and shape of its arguments.

    Args:
        function: A function from tensors to a list of tensors and other leaves.
        tensors: The arguments to trace it with.
        compiles: Whether to compile the traced graph, or to run it without the compiler.
    """

    def __init__(
        self,
        function: Callable[..., tuple[list[Any], Any]],
        tensors: Sequence[Tensor],
        *,
        compiles: bool = True,
    ) -> None:
        self.graph, leaves, self._structure = _traced(function, tensors)
        self._leaves = leaves
        self._copies = compiles and tensors[0].is_cuda
        self._run = self._compiled(tensors) if compiles else self.graph.forward

    def _compiled(self, tensors: Sequence[Tensor]) -> Callable[..., Any]:
        options = {
            # A CUDA graph runs a whole program with one launch.
            "triton.cudagraphs": self._copies,
            # A program without autograd is taken for inference, where the CPU's convolutions get
            # channels last: with their backward inside, each activation would be kept once in every
            # layout that some operation wants.
            "layout_optimization": tensors[0].is_cuda,
        }
        # The compiler caches its results on disk, also for other processes, but only if it
        # is told that no shape is symbolic.
        fake = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
        likes: list[Any] = [fake.from_tensor(tensor, static_shapes=True) for tensor in tensors]
        if self._copies:
            # CUDA graphs have their own memory: free what tracing has used.
            torch.cuda.empty_cache()
        with torch.no_grad(), _without_chatter(), tracing(TracingContext(fake)):
            compiled: Callable[..., Any] = torch._inductor.compile(self.graph, likes, options)
        return compiled

    def __call__(self, tensors: Sequence[Tensor]) -> Any:
        """Return the result of the function."""
        with torch.no_grad():
            found = self._run(*tensors)
            if self._copies:
                # The next replay overwrites this memory.
                found = _copied(found)
        leaves = [
            found[leaf.index] if isinstance(leaf, _Computed)
            else tensors[leaf.index] if isinstance(leaf, _Given)
            else leaf
            for leaf in self._leaves
        ]  # fmt: skip
        return pytree.tree_unflatten(leaves, self._structure)


class Compiled:
    """A pure function of pytrees, compiled at the first call with each structure and layout.

    Args:
        function: Tensors in its arguments are inputs. Everything else is constant in a program
            and must be hashable.
        compiles: See `Program`.

    Attributes:
        programs: All compiled programs, by structure and layout.
        seconds: The time for tracing and compiling.

    Example:
        >>> double = Compiled(lambda tree, factor: {"twice": tree["x"] * factor})
        >>> double({"x": torch.ones(2)}, 2), len(double.programs)
        ({'twice': tensor([2., 2.])}, 1)
    """

    def __init__(self, function: Callable[..., Any], *, compiles: bool = True) -> None:
        self._function, self._compiles = function, compiles
        self.programs: dict[Any, Program] = {}
        self.seconds = 0.0

    def __call__(self, *arguments: Any) -> Any:
        """Return ``function(*arguments)``."""
        leaves, structure = pytree.tree_flatten(arguments)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        form = (
            structure,
            tuple(
                (leaf.shape, leaf.stride(), leaf.dtype, leaf.device)
                if isinstance(leaf, Tensor)
                else leaf
                for leaf in leaves
            ),
        )
        program = self.programs.get(form)
        if program is None:
            began = time.perf_counter()
            flat = partial(_flat, self._function, leaves, structure)
            try:
                with (
                    dispatch_kept(),
                    _quiet("torch._subclasses.fake_tensor", logging.CRITICAL),
                ):
                    program = Program(flat, _distinct(tensors), compiles=self._compiles)
            except MetalossError:
                raise
            except Exception as error:  # many types of errors are possible
                lines = str(error).strip().splitlines() or [type(error).__name__]
                raise MetalossError(
                    "the step cannot be compiled: PyTorch fails to trace an operation or its "
                    f"derivative ({lines[0][:160]}): use compile=off"
                ) from error
            self.programs[form] = program
            self.seconds += time.perf_counter() - began
        return program(tensors)


def _distinct(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the tensors; one that comes twice would be traced as one value for all later calls."""
    first = {id(one): place for place, one in reversed(list(enumerate(tensors)))}
    return [one if first[id(one)] == place else one.detach() for place, one in enumerate(tensors)]


def _copied(values: Sequence[Tensor]) -> list[Tensor]:
    # Copy all, most of which are weights, with one launch.
    alike = [value for value in values if value.dtype is torch.float32]
    copies = iter(torch._foreach_mul(alike, 1.0) if alike else ())
    return [next(copies) if value.dtype is torch.float32 else value.clone() for value in values]


@contextmanager
def _without_chatter() -> Iterator[None]:
    # With a CUDA compiler but no GPU, the first compilation in a process logs a warning.
    with _quiet("torch.utils.cpp_extension", logging.ERROR), warnings.catch_warnings():
        # A user cannot change the first; the second is set by `tf32=`.
        for message in (r"\s*Online softmax is disabled", "TensorFloat32 tensor cores"):
            warnings.filterwarnings("ignore", message, UserWarning)
        yield


@contextmanager
def _quiet(name: str, level: int) -> Iterator[None]:
    """Ignore messages of a logger below a level."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


@dataclass(frozen=True)
class _Computed:
    """The index of a result that the program computes."""

    index: int


@dataclass(frozen=True)
class _Given:
    """The index of an input that is returned unchanged."""

    index: int


def _flat(
    function: Callable[..., Any], leaves: Sequence[Any], structure: Any, *tensors: Tensor
) -> tuple[list[Any], Any]:
    """Return the leaves of the result as a function of tensors alone, and its structure."""
    given = iter(tensors)
    filled = [next(given) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    return pytree.tree_flatten(function(*pytree.tree_unflatten(filled, structure)))


def _traced(
    function: Callable[..., tuple[list[Any], Any]], tensors: Sequence[Tensor]
) -> tuple[fx.GraphModule, list[Any], Any]:
    """Return the graph of the computed results, and where each result comes from."""
    structure: Any = None

    def tensors_of(*given: Tensor) -> list[Any]:
        nonlocal structure
        leaves, structure = function(*given)
        return leaves

    # Trace with fake tensors, which need no memory and no computation.
    with tracing(TracingContext(FakeTensorMode(allow_non_fake_inputs=True))):
        traced = make_fx(tensors_of, tracing_mode="fake")(*tensors)
    inputs = [node for node in traced.graph.nodes if node.op == "placeholder"]
    (output,) = (node for node in traced.graph.nodes if node.op == "output")
    computed: dict[fx.Node, _Computed] = {}
    leaves: list[Any] = []
    for leaf in output.args[0]:
        if leaf in inputs:
            leaves.append(_Given(inputs.index(leaf)))
        elif isinstance(leaf, fx.Node):
            leaves.append(computed.setdefault(leaf, _Computed(len(computed))))
        else:
            leaves.append(leaf)
    output.args = (tuple(computed),)
    # Autograd asks about shapes while it is traced: those nodes return no tensors.
    traced.graph.eliminate_dead_code()
    simplify_products(traced.graph)
    merge_repeated(traced.graph)
    reuse_rows(traced.graph)
    traced.recompile()
    return traced, leaves, structure
