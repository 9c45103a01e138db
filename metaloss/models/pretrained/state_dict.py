"""Weights from files, without executing anything in them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metaloss.errors import MetalossError, first_line

# Where training scripts keep the weights among other things.
_INSIDE = ("state_dict", "model", "model_state_dict")


def read_weights(path: str | Path) -> Mapping[str, Tensor]:
    """Return the tensors of a ``.safetensors`` file, or of a file that ``torch.save`` has written.

    A prefix ``module.`` of all names, which ``DataParallel`` adds, is left out.

    Raises:
        MetalossError: If the file is missing, damaged, or holds something other than tensors.
    """
    path = Path(path).expanduser()
    try:
        changed = path.stat().st_mtime_ns
    except OSError as error:
        raise MetalossError(f"model.weights={path}: no such file") from error
    return _read(path, changed)


# A schedule that resets θ builds the model many times.
@functools.lru_cache(maxsize=2)
def _read(path: Path, changed: int) -> Mapping[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        content: Any
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = first_line(error)
        raise MetalossError(f"model.weights={path}: cannot be read: {reason[:200]}") from error
    # The reader of pickles may raise anything for a file that is none.
    except Exception as error:
        raise MetalossError(
            f"model.weights={path}: holds something other than tensors, or is not a torch file; "
            "expected a state_dict, saved by torch.save(model.state_dict(), path) or safetensors"
        ) from error
    for name in _INSIDE:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not content:
        raise MetalossError(f"model.weights={path}: expected a state_dict, names with tensors")
    if not all(isinstance(value, Tensor) for value in content.values()):
        raise MetalossError(f"model.weights={path}: expected tensors only in its state_dict")
    wrapped = all(name.startswith("module.") for name in content)
    return {name.removeprefix("module.") if wrapped else name: v for name, v in content.items()}
