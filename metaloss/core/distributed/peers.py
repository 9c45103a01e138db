"""The processes of a user's training loop. Each has its own rows at every step."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils import _pytree as pytree

from metaloss.config import Compile
from metaloss.core.distributed.alike import check_same
from metaloss.core.distributed.launch import present
from metaloss.core.storage.digests import digest
from metaloss.errors import MetalossError
from metaloss.inner.weighted import parts_of
from metaloss.types import Batch

Held = Mapping[str, Iterable[Tensor]]
# The batches of the steps, and the meta-batch if there is one.
Rows = tuple[tuple[Batch, ...], Batch | None]


class Peers:
    """The processes that train one model in a user's loop.

    A step gives the result of one process on all rows, in the order of the ranks. The tensors must
    be the same in all processes. They are compared at the first step, and again after a process has
    changed one of them. In a single process, every method is trivial.

    Args:
        held: Returns the tensors that must be the same everywhere, by a name for messages.
        settings: Plain values that must be the same everywhere, such as the seed.
        compile: Whether the steps are compiled, which is not possible in several processes.

    Raises:
        MetalossError: In every process, if the tensors differ or the steps are to be compiled; or
            if a launcher has started several processes that have no process group.

    Example:
        >>> peers = Peers(lambda: {"model": [torch.ones(2)]}, {"seed": 0})
        >>> batch = Batch(torch.ones(4, 2), torch.ones(4))
        >>> batches, meta_batch = peers.whole(lambda: ((batch,), None), step=0)
        >>> peers.ranks.size, batches[0] is batch, meta_batch
        (1, True, None)
    """

    def __init__(
        self,
        held: Callable[[], Held],
        settings: Mapping[str, object],
        compile: Compile = Compile.off,
    ) -> None:
        self.ranks = present()
        if self.ranks.size > 1 and compile is not Compile.off:
            # A program cannot contain the communication of processes.
            raise MetalossError(
                f"compile={compile.value}: steps in {self.ranks.size} processes cannot be "
                "compiled: use compile=off"
            )
        self._held = held
        self._settings = {name: _described(value) for name, value in settings.items()}
        self._last: list[tuple[Tensor, tuple[int, int]]] = []
        self._compare()
        self.took()

    def whole(self, given: Callable[[], Rows], step: int) -> Rows:
        """Return the batches of a step and the meta-batch, with the rows of all processes.

        Args:
            given: Returns the batches of this process. If it raises an error in one process, all
                processes raise it.
            step: The number of steps so far.

        Raises:
            MetalossError: In every process, if the batches do not match, have fewer rows than there
                are processes, or the tensors of the processes differ.
        """
        ranks = self.ranks
        size = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        if ranks.size != size:
            raise MetalossError(
                f"there are {size} processes now, but {ranks.size} when this was made: make it "
                "after torch.distributed.init_process_group()"
            )
        if size == 1:
            return given()
        own: list[Rows] = []

        def seen() -> tuple[int, bool, Any]:
            own.append(given())
            batches, meta_batch = own[0]
            forms = [_form(batch) for batch in batches]
            return step, self._touched(), (forms, None if meta_batch is None else _form(meta_batch))

        found = ranks.together(seen)
        for rank, (place, _, _) in enumerate(found):
            if place != found[0][0]:
                raise MetalossError(
                    f"rank {rank} has taken {place} steps, rank 0 {found[0][0]}: every rank must "
                    "take the same steps"
                )
        if any(touched for _, touched, _ in found):
            self._compare()
        forms = [form for _, _, form in found]
        _check_forms(forms)
        batches, meta_batch = own[0]
        joined = [
            self._joined(batch, [steps[place] for steps, _ in forms])
            for place, batch in enumerate(batches)
        ]
        if meta_batch is None:
            return tuple(joined), None
        return tuple(joined), self._joined(meta_batch, [form for _, form in forms])

    def took(self) -> None:
        """Store the versions of the tensors of this process. Call it after every step."""
        if self.ranks.size > 1:
            self._last = [(value, _version(value)) for value in self._tensors()]

    def _touched(self) -> bool:
        now = [(value, _version(value)) for value in self._tensors()]
        return len(now) != len(self._last) or any(
            a is not b or version != last
            for (a, version), (b, last) in zip(now, self._last, strict=True)
        )

    def _compare(self) -> None:
        if self.ranks.size > 1:
            held = {name: digest(values) for name, values in self._held().items()}
            check_same(self.ranks, {**self._settings, **held})

    def _tensors(self) -> list[Tensor]:
        return [value for values in self._held().values() for value in values]

    def _joined(self, batch: Batch, forms: list[Any]) -> Batch:
        sizes = [form["rows"] for form in forms]
        if sum(sizes) < self.ranks.size:
            raise MetalossError(
                f"a batch has {sum(sizes)} rows in total: expected one or more for each of "
                f"{self.ranks.size} processes"
            )
        join = partial(_joined, self.ranks.joined, sizes=sizes)
        return Batch(*pytree.tree_map(join, (batch.inputs, batch.targets)))


def _joined(join: Callable[[Tensor, list[int]], Tensor], rows: Tensor, sizes: list[int]) -> Tensor:
    shape = rows.shape[1:]
    if not shape.numel():
        return rows.new_empty(sum(sizes), *shape)
    # As bytes, because no backend supports all types.
    raw = rows.detach().contiguous().reshape(len(rows), shape.numel()).view(torch.uint8)
    return join(raw, sizes).view(rows.dtype).reshape(sum(sizes), *shape)


def _form(batch: Batch) -> dict[str, Any]:
    """Return a description of a batch that must be the same in all processes."""
    if not isinstance(batch, Batch):
        raise MetalossError("a meta_batch in parts needs one process: pass it as one batch")
    targets, weights = parts_of(batch.targets)
    paths, _ = pytree.tree_flatten_with_path(batch.inputs)
    named = {f"inputs{pytree.keystr(path)}": value for path, value in paths}
    named |= {"targets": targets} if weights is None else {"targets": targets, "weights": weights}
    for name, value in named.items():
        if not isinstance(value, Tensor) or value.layout is not torch.strided or not value.dim():
            raise MetalossError(f"the {name} of a batch must be a dense tensor (B, ...)")
        if len(value) != len(targets):
            raise MetalossError(f"a batch has {len(value)} {name} and {len(targets)} targets")
    return {
        "rows": len(targets),
        **{
            name: f"(B, {', '.join(map(str, value.shape[1:]))}) of {value.dtype} on a "
            f"{value.device.type}"
            for name, value in named.items()
        },
    }


def _check_forms(forms: list[tuple[list[Any], Any]]) -> None:
    """Raise if the batches of the processes differ in more than the number of rows."""
    (steps, meta_batch), *others = forms
    for rank, (other_steps, other_meta_batch) in enumerate(others, 1):
        if len(steps) != len(other_steps):
            raise MetalossError(
                f"rank {rank} got {len(other_steps)} training batches, rank 0 {len(steps)}: every "
                "rank must get the same number"
            )
        if (meta_batch is None) != (other_meta_batch is None):
            has, has_not = (0, rank) if other_meta_batch is None else (rank, 0)
            raise MetalossError(
                f"rank {has} got a meta_batch, rank {has_not} none: give one to every rank, "
                "or to none"
            )
        pairs = zip([*steps, meta_batch or {}], [*other_steps, other_meta_batch or {}], strict=True)
        for mine, theirs in pairs:
            for name in sorted((mine.keys() | theirs.keys()) - {"rows"}):
                if mine.get(name) != theirs.get(name):
                    raise MetalossError(
                        f"rank {rank} got {name} {theirs.get(name)}, rank 0 {mine.get(name)}: only "
                        "the number of rows may differ"
                    )


def _version(value: Tensor) -> tuple[int, int]:
    """Return a value that changes if a tensor is changed in place or gets other memory."""
    return 0 if value.is_inference() else value._version, value.data_ptr()


def _described(value: object) -> str:
    """Return a text that identifies a setting and does not depend on its memory address."""
    text = repr(value) if is_dataclass(value) or isinstance(value, int | str) else ""
    return re.sub(r"0x[0-9a-f]+", "", f"{type(value).__qualname__} {text}")
