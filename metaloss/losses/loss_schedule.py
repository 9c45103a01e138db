"""A loss schedule: φ over the course of training, as one file without code.

Loading executes nothing from the file; see `metaloss.losses.export`.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor, nn

from metaloss.errors import MetalossError, check_range
from metaloss.losses.base import LearnedLoss
from metaloss.losses.export import built, check_description, describe
from metaloss.losses.mlp import MLPLoss, MLPLossConfig
from metaloss.types import Tensors

SCHEDULE = "loss_schedule.safetensors"
# A place that is closer than this to a recorded one is that one, as s / S · S may not be s.
_SAME = 1e-12
_MOST = 2**53  # a larger number of steps is no double


class LossSchedule(nn.Module):
    """A learned loss whose φ changes with the progress of training.

    Between two recorded places φ is interpolated linearly. At a recorded place it is exactly the
    recorded φ, unless it is smoothed.

    Args:
        loss: The loss whose φ is set; it is changed.
        places: (P,) the steps at which φ was recorded, ascending from 0.
        steps: The number of training steps of that run.
        phi: φ by name, each (P, *shape).
        smoothing: The width of a moving average over φ, as a share of training from 0 to 1: φ at
            each place becomes the mean of the recorded φ at most half a width away from it.

    Example:
        >>> from metaloss.losses import Scaled
        >>> falling = {"scale": torch.tensor([2.0, 0.0])}
        >>> schedule = LossSchedule(Scaled(), [0, 10], 10, falling)
        >>> schedule.at(0.25).scale.item()
        1.5
    """

    def __init__(
        self,
        loss: LearnedLoss,
        places: Sequence[int],
        steps: int,
        phi: Mapping[str, Tensor],
        *,
        smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        check_range("smoothing", smoothing, 0 <= smoothing <= 1, "a share from 0 to 1")
        self.loss = loss.requires_grad_(False)
        # In the order of the loss, as a run relies on; a file has another one.
        self._names = [name for name, _ in loss.named_parameters()]
        self._places, self._steps = list(places), steps
        for number, name in enumerate(self._names):
            smooth = _smoothed(phi[name].detach(), places, smoothing * steps)
            self.register_buffer(f"points{number}", smooth, persistent=False)
        self.at(0.0)

    def phi(self, progress: float) -> Tensors:
        """Return φ by name at ``progress``, the share of the training steps that were taken."""
        check_range("progress", progress, 0 <= progress <= 1, "a share from 0 to 1")
        place = progress * self._steps
        if abs(place - round(place)) <= _SAME * self._steps:
            place = round(place)
        before = bisect_right(self._places, place) - 1
        first = self._places[before]
        stacks = self._stacks()
        if place == first or before + 1 == len(self._places):
            return {name: values[before].clone() for name, values in stacks.items()}
        share = (place - first) / (self._places[before + 1] - first)
        return {
            name: torch.lerp(values[before], values[before + 1], share)
            for name, values in stacks.items()
        }

    @torch.no_grad()
    def at(self, progress: float) -> LearnedLoss:
        """Return the loss for a step of training.

        It is the same object each time, with another φ, so use it before the next call.

        Args:
            progress: The share of the training steps that were taken, from 0 to 1: s / S before
                step s = 0, …, S − 1 of S.

        Raises:
            MetalossError: If the progress is out of its range.
        """
        own = dict(self.loss.named_parameters())
        for name, value in self.phi(progress).items():
            own[name].copy_(value)
        return self.loss

    def without_class_offsets(self) -> LossSchedule:
        """Return the schedule of the same MLP loss without shifts of classes, for any number."""
        config = self.loss.config
        assert isinstance(config, MLPLossConfig)
        loss = MLPLoss(replace(config, class_offsets=0), link=self.loss.link)
        loss.to(next(self.loss.parameters()).dtype)
        loss.family, loss.ignore_index = self.loss.family, self.loss.ignore_index
        phi = {n: v for n, v in self._stacks().items() if n != "offsets"}
        return LossSchedule(loss, self._places, self._steps, phi)

    def _stacks(self) -> Tensors:
        return {name: getattr(self, f"points{n}") for n, name in enumerate(self._names)}

    def forward(self, prediction: Tensor, target: Tensor, **given: Any) -> Tensor:
        """Return the loss of a batch, with the φ of the last call of :meth:`at`."""
        value: Tensor = self.loss(prediction, target, **given)
        return value


def pack_schedule(
    loss: LearnedLoss,
    places: Sequence[int],
    steps: int,
    phi: Mapping[str, Tensor],
    provenance: Mapping[str, Any],
) -> bytes:
    """Return the content of a schedule's file; see `LossSchedule`."""
    text = json.dumps({**describe(loss, provenance), "steps": steps}, ensure_ascii=False)
    tensors = {f"phi.{name}": value.detach().cpu().contiguous() for name, value in phi.items()}
    tensors["step"] = torch.tensor(list(places), dtype=torch.int64)
    # One entry, because the order of several may vary.
    return save(tensors, metadata={"loss": text})


def load_loss_schedule(path: str | Path, *, smoothing: float = 0.0) -> LossSchedule:
    """Load a loss schedule for any training loop.

    Args:
        path: The folder of a run that recorded or replayed one, or the file itself.
        smoothing: See `LossSchedule`.

    Returns:
        The schedule, on the CPU. ``schedule.at(step / steps)`` is the loss of a step.

    Raises:
        MetalossError: If the file is missing, damaged or from a newer version, or if φ is not
            finite or does not fit its family.

    Example:
        >>> import tempfile
        >>> from metaloss import train
        >>> run = train(["steps=5", "start.steps=5", "tracker=[]", f"output={tempfile.mkdtemp()}"])
        >>> schedule = load_loss_schedule(run.folder)
        >>> for step in range(4):
        ...     criterion = schedule.at(step / 4)  # the loss of this step
        >>> criterion(torch.zeros(8, 10), torch.arange(8)).shape
        torch.Size([])
    """
    file = Path(path)
    file = file if file.name == SCHEDULE else file / SCHEDULE
    try:
        with safe_open(file, framework="pt") as opened:
            text = (opened.metadata() or {}).get("loss", "")
        tensors = load(file.read_bytes())
    except FileNotFoundError as error:
        raise MetalossError(
            f"{file.parent} has no loss schedule ({SCHEDULE}): expected the folder of a finished "
            "run with schedule=online, record_phi > 0, at most 100,000 numbers in φ, no rule=l2rw"
        ) from error
    except (OSError, SafetensorError) as error:
        raise MetalossError(f"cannot read {file}: {error}") from error
    try:
        description = json.loads(text)
    except (ValueError, RecursionError):
        description = None
    check_description(description, file)
    steps, places = description.get("steps"), tensors.pop("step", torch.tensor(()))
    if places.dtype != torch.int64 or places.dim() != 1 or not _ascend(places.tolist(), steps):
        raise MetalossError(f"{file}: its steps do not ascend from 0 to at most 'steps'")
    phi = {name.removeprefix("phi."): value for name, value in tensors.items()}
    count = len(places)
    for name, value in phi.items():
        if value.shape[:1] != (count,):
            raise MetalossError(f"{file}: {name!r} has not the expected {count} values of φ")
    loss = built(description, file, {name: value[0] for name, value in phi.items()}, file)
    if not all(bool(torch.isfinite(value).all()) for value in phi.values()):
        raise MetalossError(f"{file} has values that are NaN or infinite")
    return LossSchedule(loss, places.tolist(), steps, phi, smoothing=smoothing)


def _ascend(places: Sequence[int], steps: Any) -> bool:
    if type(steps) is not int or steps > _MOST or not places:
        return False
    return places[0] == 0 and places[-1] <= steps and all(a < b for a, b in pairwise(places))


def _smoothed(values: Tensor, places: Sequence[int], width: float) -> Tensor:
    """Return the mean of the values (P, ...) within half a width around each place."""
    if width <= 0 or len(places) < 2:
        return values.clone()
    at = torch.tensor(places, dtype=torch.float64)
    first = torch.searchsorted(at, at - width / 2)
    last = torch.searchsorted(at, at + width / 2, right=True)
    # Means of the distances to the first value, so that equal values stay as they are.
    distances = values.double() - values[0].double()
    sums = torch.cat((torch.zeros_like(distances[:1]), distances.cumsum(0)))
    counts = (last - first).reshape(-1, *[1] * (values.dim() - 1))
    means = values[0].double() + (sums[last] - sums[first]) / counts
    return means.to(values.dtype)
