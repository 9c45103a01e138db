"""Errors in a user's code, in one line that names the code."""

from __future__ import annotations

import os
import site
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

import metaloss
from metaloss.errors import MetalossError
from metaloss.losses.base import LearnedLoss

_OURS = str(Path(metaloss.__file__).parent) + os.sep
_LIBRARIES = tuple(
    {
        path
        for path in (
            *site.getsitepackages(),
            site.getusersitepackages(),
            sysconfig.get_path("purelib"),
            sysconfig.get_path("platlib"),
            sysconfig.get_path("stdlib"),
        )
        if path
    }
)
_HINT = "METALOSS_DEBUG=1 in the environment shows where"


@contextmanager
def told(what: str = "") -> Iterator[None]:
    """Replace an error of the user's model, loss or function by one line.

    An error of metaloss itself, without user code in the traceback, is not changed. With ``what``,
    such as "a training batch of 8 rows", every error is that of a model that cannot take it.

    Raises:
        MetalossError: Instead of the original error, which is its cause.
    """
    try:
        yield
    except MetalossError:
        raise
    except Exception as error:
        whose = _blamed(error)
        if whose is None and not what:
            raise
        if whose is None:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise MetalossError(f"the model cannot take {what}: {lines[0]}") from error
        # Torch appends the functions of its libraries that were running.
        said = " ".join(str(error).partition("\nException raised from ")[0].split())
        failed = f"{whose} failed: {type(error).__name__}: {said or 'no message'} ({_HINT})"
        raise MetalossError(f"{failed}: it cannot take {what}" if what else failed) from error


def _blamed(error: BaseException) -> str | None:
    """Return what failed: a submodule of the model, the loss, or a line of a file."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    modules = [
        frame.f_locals["self"]
        for frame in frames
        if isinstance(frame.f_locals.get("self"), nn.Module)
    ]
    if modules:
        whole, part = modules[0], modules[-1]
        if isinstance(part, LearnedLoss) or isinstance(whole, LearnedLoss):
            return f"the loss ({type(whole).__name__})"
        names = (name for name, one in whole.named_modules() if one is part)
        name = next(names, "")
        of_model = f"the model ({type(whole).__name__})"
        return f"{of_model}, in its part {name!r} ({type(part).__name__})," if name else of_model
    own = [frame for frame in frames if _is_users(frame.f_code.co_filename)]
    if own:
        code = own[-1].f_code
        return f"{Path(code.co_filename).name}, line {own[-1].f_lineno}, in {code.co_name}(),"
    if frames and isinstance(error, RuntimeError):
        # An error in torch, from an earlier operation of the model or the loss.
        called = frames[-1].f_code.co_filename
        if not called.startswith(_OURS) or f"{os.sep}core{os.sep}" not in called:
            return "an operation of the model or the loss"
    return None


def _is_users(file: str) -> bool:
    """Return whether a file is not part of metaloss, of a library or of the command."""
    return not file.startswith(("<", _OURS, *_LIBRARIES))
