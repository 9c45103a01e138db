"""Import of the files that are given with ``--plugin``.

A file becomes the module ``metaloss.cli.plugin_files.<stem>_<hash>``. The workers of a sweep
unpickle its classes by that name. They find the file through an environment variable with the
paths.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from metaloss.errors import MetalossError

__path__: list[str] = []  # makes this module a package; `_Finder` finds its submodules
_VARIABLE = "METALOSS_PLUGIN_FILES"


def load(paths: Iterable[Path] | None) -> dict[str, str]:
    """Import each file once, so that its parts are registered.

    Returns:
        The SHA-256 of each file, by its absolute path.

    Raises:
        MetalossError: If a file cannot be read or fails to import.
    """
    hashes: dict[str, str] = {}
    for path in paths or ():
        absolute = path.expanduser().resolve()
        source = _read(path)
        named = os.environ.get(_VARIABLE, "").split(os.pathsep)
        if str(absolute) not in named:
            os.environ[_VARIABLE] = os.pathsep.join(filter(None, [*named, str(absolute)]))
        try:
            importlib.import_module(_module_name(absolute, source))
        except Exception as error:  # a user's file may raise anything
            reason = " ".join(str(error).split())
            if isinstance(error, MetalossError):
                raise MetalossError(f"plugin {path}: {reason}") from error
            raise MetalossError(
                f"plugin {path} failed to load: {type(error).__name__}: {reason}"
            ) from error
        hashes[str(absolute)] = hashlib.sha256(source).hexdigest()
    return hashes


def _read(path: Path) -> bytes:
    if path.suffix != ".py":
        raise MetalossError(f"plugin {path}: expected a Python file, NAME.py")
    try:
        return path.expanduser().read_bytes()
    except OSError as error:
        raise MetalossError(f"cannot read the plugin {path}: {error.strerror}") from error


def _module_name(path: Path, source: bytes) -> str:
    stem = re.sub(r"\W", "_", path.stem)
    return f"{__name__}.{stem}_{hashlib.sha256(source).hexdigest()[:16]}"


class _Loader(importlib.abc.InspectLoader):
    """Runs exactly the bytes that were hashed; writes no compiled file."""

    def __init__(self, path: Path, source: bytes) -> None:
        self._path, self._source = path, source

    def get_source(self, fullname: str) -> str:
        return importlib.util.decode_source(self._source)

    def get_filename(self, fullname: str) -> str:
        return str(self._path)

    def exec_module(self, module: ModuleType) -> None:
        from metaloss import registry

        token = registry.registering.set(str(self._path))
        try:
            exec(compile(self._source, str(self._path), "exec"), module.__dict__)
        finally:
            registry.registering.reset(token)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of the files, in this process and in workers."""

    def find_spec(
        self, fullname: str, path: Any, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith(f"{__name__}."):
            return None
        for named in filter(None, os.environ.get(_VARIABLE, "").split(os.pathsep)):
            file = Path(named)
            source = file.read_bytes() if file.is_file() else b""
            if _module_name(file, source) == fullname:
                spec = importlib.machinery.ModuleSpec(
                    fullname, _Loader(file, source), origin=str(file)
                )
                spec.has_location = True
                return spec
        return None


sys.meta_path.append(_Finder())
