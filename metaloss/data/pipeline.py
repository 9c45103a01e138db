"""A task's fitted pipeline: from new rows to inputs, and from raw outputs to predictions.

It is stored as JSON with numbers, texts and names. Reading it executes no code, and restores the
numbers bit for bit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from metaloss.contracts import Pipeline, Task
from metaloss.data.images.picture_inputs import PictureInputs
from metaloss.data.inputs import (
    GivenInputs,
    Inputs,
    ScaledInputs,
    scaling_from_dict,
    scaling_to_dict,
)
from metaloss.data.scaling import Scaling, as_float32
from metaloss.data.tables.table_inputs import TableInputs
from metaloss.errors import MetalossError, first_line, unknown_name
from metaloss.inner.fields import Fields, as_inputs, shape_from_lists
from metaloss.types import Link

PIPELINE = "pipeline.json"
FORMAT = 1
_KINDS: tuple[type[Inputs], ...] = (ScaledInputs, GivenInputs, TableInputs, PictureInputs)


@dataclass(frozen=True, kw_only=True)
class FittedPipeline(Pipeline):
    """The encoding of inputs and predictions that a task has fitted.

    Attributes:
        inputs: The encoding of inputs, fitted on the training rows.
        link: The function from raw outputs to predictions.
        outputs: C.
        input_shape: The shape of one row of the inputs; of several tensors, see `shape_of`.
        classes: The names of the C classes; None: their numbers.
        scaling: The scaling of targets; None: targets are not scaled.
    """

    inputs: Inputs
    link: Link
    outputs: int
    input_shape: Any
    classes: list[str] | None = None
    scaling: Scaling | None = None

    def __str__(self) -> str:
        """Return in one line what the inputs are made of."""
        return str(self.inputs)

    def read(self, path: Path) -> tuple[Tensor, dict[str, list]]:
        """Return the inputs of the rows of a file, and a column with the place of each row."""
        rows, places = self.inputs.read(path)
        return self._encoded(rows, str(path)), places

    def encode(self, rows: Any) -> Tensor:
        """Return the inputs (n, ...) of rows: a table, array or tensor of the task's form."""
        return as_inputs(self._encoded_like(self.input_shape, rows, "rows"))

    def _encoded_like(self, shape: Any, rows: Any, name: str) -> Any:
        """Return the encoded rows of each tensor in the form of the shapes; see `shape_of`."""
        if isinstance(shape, tuple) and all(isinstance(size, int) for size in shape):
            return self._encoded(self.inputs.taken(rows), name, shape)
        fields = as_inputs(rows)
        own = _places(fields.tree) if isinstance(fields, Fields) else {}
        if own.keys() != _places(shape).keys():
            raise MetalossError(
                f"{name}: got {', '.join(map(str, own)) or type(rows).__name__}; expected tensors "
                f"or arrays at {', '.join(map(str, _places(shape)))}"
            )
        found = {
            at: self._encoded_like(one, own[at], f"{name}[{at!r}]")
            for at, one in _places(shape).items()
        }
        return found if isinstance(shape, dict) else tuple(found.values())

    def read_labelled(self, path: Path) -> tuple[Tensor, Tensor]:
        """Return the inputs and the targets of the rows of a file with known targets."""
        rows, targets = self.inputs.labelled(path, self.classes)
        return self._encoded(rows, str(path)), self.targets(targets, str(path))

    def targets(self, values: Any, name: str = "targets") -> Tensor:
        """Return targets as in training.

        Args:
            values: Names or indices of classes (n, *), or values (n,) or (n, C, *) in the units of
                the targets. Where the names are numbers, numbers are names.
            name: For messages.

        Raises:
            MetalossError: If a class is unknown, or a value is not a finite number.
        """
        found = np.asarray(values.cpu() if isinstance(values, Tensor) else values)
        if self.link is Link.softmax and (found.ndim < 2 or found.dtype.kind != "f"):
            return torch.from_numpy(self._indices(found, name))
        try:
            found = found.astype(np.float64)
        except (ValueError, TypeError) as error:
            raise MetalossError(f"{name}: {error}; expected numbers") from error
        if not np.isfinite(found).all():
            row = int(np.argwhere(~np.isfinite(found))[0][0])
            raise MetalossError(f"{name}: row {row + 1} has no finite target; expected numbers")
        found = found[:, None] if found.ndim == 1 else found
        if self.scaling is not None:
            return torch.from_numpy(as_float32(self.scaling(found)))
        return torch.from_numpy(found).to(torch.get_default_dtype())

    def _indices(self, found: np.ndarray, name: str) -> np.ndarray:
        """Return the indices of classes that are given by name or by index."""
        places: dict[Any, int] = {one: place for place, one in enumerate(self.classes or ())}
        numbers = found.dtype.kind in "iuf"
        if numbers:
            # Of classes that are called 1, 2 and 3, the number 2 is the second, as in a file.
            called = {number: places[one] for one in places if (number := _number(one)) is not None}
            places = called if places and len(called) == len(places) else {}
        if not numbers or places:
            known = [float(one) if numbers else str(one) for one in found.ravel()]
            for one, shown in zip(known, found.ravel().tolist(), strict=True):
                if one not in places:
                    error = unknown_name("class", shown, self.classes or ())
                    raise MetalossError(f"{name}: {error}")
            return np.array([places[one] for one in known], np.int64).reshape(found.shape)
        if found.dtype.kind == "f" and not (found == np.floor(found)).all():
            raise MetalossError(f"{name}: fractions or gaps; expected classes")
        if found.size and not 0 <= found.min() <= found.max() < self.outputs:
            raise MetalossError(
                f"{name}: classes from {found.min():g} to {found.max():g}; expected 0 to "
                f"{self.outputs - 1}"
            )
        return found.astype(np.int64)

    def in_units(self, values: Tensor) -> Tensor:
        """Return values (B, C) in the units of the targets, in float64."""
        scaled = values.double().numpy()
        if self.scaling is not None:
            scaled = scaled * self.scaling.std + self.scaling.mean
        return torch.from_numpy(scaled)

    def _encoded(self, rows: Any, name: str, shape: Any = None) -> Tensor:
        shape = self.input_shape if shape is None else shape
        if len(rows) == 0:
            raise MetalossError(f"{name}: no rows; expected one or more")
        try:
            inputs = torch.from_numpy(np.ascontiguousarray(self.inputs(rows)))
        except (ValueError, TypeError) as error:
            raise MetalossError(f"{name}: cannot be encoded: {first_line(error)}") from error
        if tuple(inputs.shape[1:]) != shape:
            raise MetalossError(
                f"{name}: inputs of shape {tuple(inputs.shape)}; expected "
                f"(B, {', '.join(map(str, shape))})"
            )
        if inputs.is_floating_point() and not bool(inputs.isfinite().all()):
            bad = int(inputs.flatten(1).isfinite().all(1).logical_not().nonzero()[0])
            raise MetalossError(
                f"{name}: row {bad + 1} has numbers that are not finite, or too large after "
                "scaling by the training rows"
            )
        return inputs

    def predictions(self, outputs: Tensor) -> pd.DataFrame:
        """Return a table with the class and the probability of each class, or with values.

        Args:
            outputs: Raw outputs (B, C).

        Raises:
            MetalossError: If each row has outputs at several positions.
        """
        if outputs.ndim != 2:
            raise MetalossError(
                f"outputs of shape {tuple(outputs.shape)}: a table can only have (B, C); in "
                "Python, run.outputs(rows) returns outputs of any shape"
            )
        outputs = outputs.cpu()
        names = self.classes or [str(number) for number in range(self.outputs)]
        if self.link is Link.identity:
            values = self.in_units(outputs).numpy()
            titles = ["value"] if self.outputs == 1 else [f"value {name}" for name in names]
            return pd.DataFrame(values, columns=titles)
        softmax = self.link is Link.softmax
        shares = outputs.double().softmax(1) if softmax else outputs.double().sigmoid()
        table = pd.DataFrame(shares.numpy(), columns=[f"p({name})" for name in names])
        if softmax:
            table.insert(0, "class", [names[place] for place in outputs.argmax(1).tolist()])
        return table

    def to_dict(self) -> dict[str, Any]:
        """Return the pipeline as plain data."""
        return {
            "format": FORMAT,
            "link": self.link.name,
            "outputs": self.outputs,
            "input_shape": self.input_shape,
            "classes": self.classes,
            "target": None if self.scaling is None else scaling_to_dict(self.scaling),
            "inputs": {"kind": self.inputs.kind, **self.inputs.to_dict()},
        }


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _places(tree: Any) -> dict[Any, Any]:
    return dict(tree) if isinstance(tree, Mapping) else dict(enumerate(tree))


def pipeline_of(task: Task) -> Pipeline:
    """Return the pipeline of a task. Without one, rows are used as inputs without encoding."""
    return task.pipeline or FittedPipeline(
        inputs=GivenInputs(), link=task.link, outputs=task.outputs, input_shape=task.input_shape
    )


def pipeline_from_dict(content: Mapping[str, Any]) -> FittedPipeline:
    """Return the pipeline that ``to_dict`` stored, bit for bit.

    Example:
        >>> of = {"outputs": 2, "input_shape": (3,), "classes": ["no", "yes"]}
        >>> pipeline = FittedPipeline(inputs=GivenInputs(), link=Link.softmax, **of)
        >>> pipeline_from_dict(pipeline.to_dict()).predictions(torch.tensor([[0.0, 0.0]]))
          class  p(no)  p(yes)
        0    no    0.5     0.5
    """
    kinds = {kind.kind: kind for kind in _KINDS}
    target = content["target"]
    return FittedPipeline(
        inputs=kinds[content["inputs"]["kind"]].from_dict(content["inputs"]),
        link=Link[content["link"]],
        outputs=content["outputs"],
        input_shape=shape_from_lists(content["input_shape"]),
        classes=content["classes"],
        scaling=None if target is None else scaling_from_dict(target),
    )


def load_pipeline(folder: Path) -> FittedPipeline:
    """Return the pipeline in a run's folder.

    Raises:
        MetalossError: If the file is missing, damaged or of a newer version.
    """
    path = folder / PIPELINE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        form = int(content["format"])
        if form <= FORMAT:
            return pipeline_from_dict(content)
    except FileNotFoundError as error:
        raise MetalossError(
            f"{folder}: no {PIPELINE}; expected the folder of a finished run"
        ) from error
    except RecursionError as error:
        raise MetalossError(f"{path} is damaged: nested too deeply") from error
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise MetalossError(f"{path} is damaged: {first_line(error)}") from error
    raise MetalossError(
        f"{path} has format {form}, of a newer metaloss; this one reads up to {FORMAT}"
    )
