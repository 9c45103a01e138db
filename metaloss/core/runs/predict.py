"""Predictions of a trained model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from metaloss import registry
from metaloss.compose import chosen_name, compose, read_file
from metaloss.config import Precision, RunConfig
from metaloss.core.parts.custom import CUSTOM
from metaloss.core.parts.numerics import numerics
from metaloss.core.parts.runtime import resolve_device
from metaloss.core.storage.run_folder import CONFIG
from metaloss.core.training.evaluate import outputs_of
from metaloss.data.pipeline import FittedPipeline
from metaloss.errors import MetalossError
from metaloss.inner.model.functional import FunctionalModel
from metaloss.inner.outlined import outlined
from metaloss.types import InnerState, Tensors

MODEL, BEST_MODEL = "model.safetensors", "model_best.safetensors"


@torch.no_grad()
def outputs_for(folder: Path, model: nn.Module, inputs: Tensor) -> Tensor:
    """Return a run's raw outputs (B, C, *) in evaluation mode, on its device.

    They are computed as in the evaluation of the run: on its device (if available), in its
    precision, with the same block size. All test rows of the run give the same values, bit for bit.
    ``inputs`` (B, ...) are encoded.
    """
    content = read_file(folder / CONFIG)
    device = _device(str(content.get("device", "auto")))
    autocast = torch.bfloat16 if content.get("precision") == Precision.bf16.value else None
    functional = FunctionalModel(
        model, autocast=autocast, channels_last=bool(content.get("channels_last"))
    ).to(device)
    params, buffers = functional.state(device=device)
    with numerics(deterministic=bool(content.get("deterministic")), tf32=content.get("tf32")):
        return outputs_of(functional, InnerState(params, buffers, None), inputs)


def load_model(
    folder: Path, pipeline: FittedPipeline, model: nn.Module | None, name: str
) -> nn.Module:
    """Return the trained model of a run, with the weights of the file ``name``.

    ``model`` is the user's model, if the run has one; else ``pipeline`` has the shapes.

    Raises:
        MetalossError: If the weights are missing or damaged, or do not fit the model.
    """
    if not isinstance(model, nn.Module | None):
        raise MetalossError(f"model is a {type(model).__name__}: expected a torch.nn.Module")
    build = _building(folder, pipeline) if model is None else partial(copy.deepcopy, model)
    path = folder / name
    try:
        state = load_file(path)
    except FileNotFoundError as error:
        why = "of an older version, which kept the last weights alone" if name == BEST_MODEL else ""
        raise MetalossError(
            f"{folder}: no {name}; " + (f"the run is {why}" if why else "expected a finished run")
        ) from error
    except (OSError, SafetensorError) as error:
        raise MetalossError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
    # A config may describe a network that fills the memory: shapes are compared first.
    if model is None and (outline := outlined(build)) is not None:
        _fill(outline, state, path, assign=True)
    module = build()
    _fill(module, state, path)
    return module


def _fill(module: nn.Module, state: Tensors, path: Path, *, assign: bool = False) -> None:
    # Entries that are no tensors are not in the file: they stay as they are.
    others = {n: v for n, v in module.state_dict().items() if not isinstance(v, Tensor)}
    try:
        module.load_state_dict({**others, **state}, assign=assign)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise MetalossError(f"{path} does not fit the model: {reason}") from error


def _building(folder: Path, pipeline: FittedPipeline) -> Callable[[], nn.Module]:
    content = read_file(folder / CONFIG)
    if chosen_name(content.get("model")) == CUSTOM:
        raise MetalossError(
            f"{folder}: the run trained a model of your own: metaloss.load_run(folder, model=...)"
        )
    chosen = composed(folder).model
    # The weights are those of the run, also where the files that it began with are gone.
    without_files = getattr(chosen.options, "without_files", lambda: chosen.options)
    part, options = registry.get("model", chosen.name), without_files()
    shape = {"input_shape": pipeline.input_shape, "outputs": pipeline.outputs}
    return partial(part.build, options, **shape)


def composed(folder: Path) -> RunConfig:
    """Return the config of a run, with registered parts in the place of the user's own objects."""
    content = read_file(folder / CONFIG)
    stand_ins = {"task": "digits", "model": "mlp", "loss": "mlp"}
    own = [group for group in stand_ins if chosen_name(content.get(group)) == CUSTOM]
    return compose([f"{group}={stand_ins[group]}" for group in own], config_file=folder / CONFIG)


def _device(name: str) -> torch.device:
    try:
        return resolve_device(name)
    except MetalossError:  # it was trained on another machine
        return resolve_device("auto")
