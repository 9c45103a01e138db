"""A learned loss as two files: ``loss.safetensors`` (φ) and ``loss.json`` (family and options).

Loading executes nothing from the files. The family is looked up by name in the registry, its
options are checked against the family's dataclass, and φ must have the right names, shapes and
types.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from metaloss import registry
from metaloss.errors import MetalossError, check_index, first_line
from metaloss.inner.one_thread import one_thread
from metaloss.inner.outlined import outlined
from metaloss.losses.base import IGNORED, LearnedLoss
from metaloss.types import Link, Tensors

# Format 2 added ignore_index and the type of φ.
FORMAT, READABLE = 2, (1, 2)
WEIGHTS, DESCRIPTION = "loss.safetensors", "loss.json"
_LARGEST_DESCRIPTION = 1_000_000  # bytes
_DTYPES = {name: getattr(torch, name) for name in ("float32", "float64", "bfloat16", "float16")}


def describe(loss: LearnedLoss, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of ``loss.json``: family, options, link, and where it was learned.

    Raises:
        MetalossError: If the loss's class is not registered.
    """
    family = family_of(loss)
    if family is None:
        raise MetalossError(
            f"{type(loss).__name__} is not registered, so that an export could not be loaded: "
            "register it with metaloss.register"
        )
    config = loss.config
    fields = dataclasses.fields(config) if dataclasses.is_dataclass(config) else ()
    return {
        "format": FORMAT,
        "family": family,
        "options": {field.name: _plain(getattr(config, field.name)) for field in fields},
        "link": loss.link.name,
        "ignore_index": loss.ignore_index,
        "dtype": _dtype(loss),
        "provenance": dict(provenance),
    }


def family_of(loss: LearnedLoss) -> str | None:
    """Return the registered name of a loss; None if it has none."""
    return loss.family or registry.name_of("loss", type(loss))


def pack(loss: LearnedLoss, phi: Tensors, provenance: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """Return the contents of the two files, φ first."""
    description = json.dumps(describe(loss, provenance), indent=2, ensure_ascii=False) + "\n"
    weights = {name: value.detach().cpu().contiguous() for name, value in phi.items()}
    return save(weights, metadata={"format": "pt"}), description.encode()


def load_loss(path: str | Path) -> LearnedLoss:
    """Load an exported loss as an ``nn.Module`` for any training loop.

    Args:
        path: The folder with ``loss.safetensors`` and ``loss.json``, such as a run's folder.

    Returns:
        The loss, on the CPU; ``loss(raw outputs (B, C, *), targets)`` is a scalar.

    Raises:
        MetalossError: If a file is missing, damaged or from a newer version; if φ is not finite or
            does not fit its family.

    Example:
        >>> import tempfile, torch
        >>> from metaloss import train
        >>> run = train(["steps=5", "start.steps=5", "tracker=[]", f"output={tempfile.mkdtemp()}"])
        >>> criterion = load_loss(run.folder)
        >>> criterion(torch.zeros(8, 10), torch.arange(8)).shape
        torch.Size([])
    """
    folder = Path(path)
    if folder.name in (WEIGHTS, DESCRIPTION):
        folder = folder.parent
    description = _read_description(folder / DESCRIPTION)
    phi = _read_phi(folder / WEIGHTS)
    loss = built(description, folder / DESCRIPTION, phi, folder / WEIGHTS)
    own = dict(loss.named_parameters())
    with torch.no_grad():
        for name, value in phi.items():
            own[name].copy_(value)
    return loss


def built(description: Mapping[str, Any], path: Path, phi: Tensors, weights: Path) -> LearnedLoss:
    """Return the loss of a checked description, with a φ that is still to be filled by ``phi``.

    ``path`` and ``weights`` are their files, for messages.

    Raises:
        MetalossError: If the loss cannot be built, or φ does not fit it. A small file may describe
            a network that fills the memory: φ is compared with its shapes first.
    """
    part = registry.get("loss", description["family"])
    # The family "load" names another file, which may be this one.
    if part.name == "load":
        raise MetalossError(f"{path}: family 'load' names another file: refused")
    options = _options(part, description["options"], path)

    def build() -> LearnedLoss:
        loss: LearnedLoss = part.build(options, link=Link[description["link"]])
        loss.to(_DTYPES[description.get("dtype", "float32")])
        # Set here, because the constructor of a plugin's family may not take it.
        loss.ignore_index = description.get("ignore_index", IGNORED)
        loss.family, loss.loaded = description["family"], True
        return loss

    if (outline := outlined(build)) is not None:
        check_phi(outline, phi, weights)
    try:
        with one_thread(), torch.random.fork_rng(devices=[]):
            loss = build()
    # Such as a network that no memory can hold, or a number that torch cannot.
    except (RuntimeError, MemoryError, TypeError, OverflowError) as error:
        reason = first_line(error)
        raise MetalossError(f"{path}: a loss of these options cannot be built: {reason}") from error
    check_phi(loss, phi, weights)
    return loss


def _read_description(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST_DESCRIPTION:
            raise MetalossError(f"{path} is larger than {_LARGEST_DESCRIPTION} bytes: not a loss")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MetalossError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise MetalossError(f"{path} is not JSON: {str(error) or 'nested too deeply'}") from error
    check_description(content, path)
    return content


def check_description(content: Any, path: Path) -> None:
    """Raise if the result of :func:`describe`, read from a file, is not one."""
    if not isinstance(content, dict) or "format" not in content:
        raise MetalossError(f"{path} does not describe a loss: it has no 'format'")
    if type(content["format"]) is not int or content["format"] not in READABLE:
        known = " and ".join(map(str, READABLE))
        raise MetalossError(
            f"{path} has format {content['format']!r}; this metaloss reads formats {known}"
        )
    keys: dict[str, type] = {"family": str, "options": dict, "link": str}
    if content["format"] > 1:
        keys |= {"ignore_index": int, "dtype": str}
    for key, kind in keys.items():
        if type(content.get(key)) is not kind:
            raise MetalossError(f"{path}: {key!r} is missing or no {kind.__name__}")
    check_index(f"{path}: ignore_index", content.get("ignore_index", IGNORED))
    if content.get("dtype", "float32") not in _DTYPES:
        raise MetalossError(
            f"{path}: dtype {content['dtype']!r} is unknown (allowed: {', '.join(_DTYPES)})"
        )
    if content["link"] not in Link.__members__:
        raise MetalossError(
            f"{path}: link {content['link']!r} is unknown (allowed: {', '.join(Link.__members__)})"
        )


def _options(part: registry.Part, given: dict[str, Any], path: Path) -> Any:
    try:
        schema = OmegaConf.structured(part.config_class)
        OmegaConf.set_readonly(schema, False)
        # An interpolation such as ${oc.env:HOME} must not be evaluated.
        if "${" in json.dumps(given):
            raise MetalossError(f"{path}: an option has an interpolation (${{...}}): refused")
        return OmegaConf.to_object(OmegaConf.merge(schema, given))
    except (OmegaConfBaseException, RecursionError, TypeError, OverflowError) as error:
        reason = first_line(error)
        raise MetalossError(f"{path}: options do not fit {part.name!r}: {reason}") from error


def _read_phi(path: Path) -> Tensors:
    try:
        found: Tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise MetalossError(f"cannot read {path}: {error}") from error
    return found


def check_phi(loss: LearnedLoss, found: Tensors, path: Path) -> None:
    """Raise if values from a file are not a φ of a loss."""
    own = dict(loss.named_parameters())
    if found.keys() != own.keys():
        raise MetalossError(
            f"{path} has parameters {sorted(found)}, expected {sorted(own)} for {loss.family!r}"
        )
    for name, value in found.items():
        if value.shape != own[name].shape or value.dtype != own[name].dtype:
            raise MetalossError(
                f"{path}: {name!r} has shape {tuple(value.shape)} and type {value.dtype}, expected "
                f"{tuple(own[name].shape)} and {own[name].dtype}"
            )
        if not torch.isfinite(value).all():
            raise MetalossError(f"{path}: {name!r} has values that are NaN or infinite")


def _dtype(loss: LearnedLoss) -> str:
    found = {str(value.dtype).removeprefix("torch.") for value in loss.parameters()}
    if len(found) > 1:
        raise MetalossError(
            f"the loss's parameters have several types, {', '.join(sorted(found))}: expected one; "
            "use loss.to(torch.float32)"
        )
    return found.pop() if found else "float32"


def _plain(value: Any) -> Any:
    return value.name if isinstance(value, Enum) else value
