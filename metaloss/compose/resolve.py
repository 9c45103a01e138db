"""Composes a configuration from defaults, a file, presets and overrides, by Hydra."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
import hydra.version
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from metaloss import registry
from metaloss.compose import memo, publish, words
from metaloss.compose.added import ADDED
from metaloss.compose.explain import explain
from metaloss.compose.mapping import to_overrides
from metaloss.compose.paths import with_absolute_paths
from metaloss.compose.renamed import renamed_key
from metaloss.compose.yaml_file import chosen_name, read_file
from metaloss.config import RunConfig, Selected, Settings
from metaloss.errors import MetalossError
from metaloss.registry import GROUPS


def compose(
    overrides: Sequence[str] | Mapping[str, Any] = (),
    config_file: str | Path | Mapping[str, Any] | None = None,
) -> RunConfig:
    """Compose a configuration. Later ones override: defaults, file, paper, presets, overrides.

    Args:
        overrides: ``KEY=VALUE`` words in Hydra's override grammar, or a mapping of dotted keys.
        config_file: A run's ``config.yaml``, or its content from `to_dict`. If an override chooses
            another part of a group, the file's options of that group are not used.

    Raises:
        MetalossError: One line with what was given, what is allowed, and the nearest valid name.

    Example:
        >>> config = compose({"schedule": "online", "inner.lr": 0.1, "tracker": []})
        >>> config.schedule.name, config.inner.options.lr, config.steps
        ('online', 0.1, 2000)
        >>> compose(["stpes=10"])
        Traceback (most recent call last):
        metaloss.errors.MetalossError: unknown key 'stpes': did you mean 'steps'? (allowed: ...)
    """
    if isinstance(overrides, Mapping):
        overrides = to_overrides(overrides)
    elif isinstance(overrides, str):
        overrides = [overrides]
    where = "the configuration" if isinstance(config_file, Mapping) else str(config_file)
    if isinstance(config_file, str | Path):
        values = read_file(Path(config_file))
    else:
        values = {key: value for key, value in (config_file or {}).items() if key != "output"}
    parsed = words.parse(overrides)
    for group, name in words.choices(parsed):
        # If another part is chosen, nothing of the file is used, not even an unknown part.
        if chosen_name(values.get(group)) not in (None, name):
            del values[group]

    def in_full(overrides: Sequence[Override]) -> DictConfig:
        publish_chosen(overrides)
        with root(values, where) as name, own_hydra():
            return hydra.compose(name, words.for_hydra(overrides))

    with publish.lock:
        try:
            composed = in_full(parsed) if values else memo.composed(parsed, in_full)
        except (HydraException, OmegaConfBaseException) as error:
            raise explain(error) from error
        return from_hydra(composed, [override.key_or_group for override in parsed])


def publish_chosen(overrides: Iterable[Override]) -> None:
    """Publish the parts that words and presets choose.

    Raises:
        MetalossError: If a part that is named fails to load.
    """
    for group, name in words.choices(overrides):
        if group not in ADDED:
            publish.publish(group, name)
            continue
        if group == "paper":
            publish.publish_row(name)
        for choice in ADDED[group][name].choices.items():
            publish.try_publish(*choice)


@contextmanager
def own_hydra() -> Iterator[Any]:
    """Initialise Hydra's global state, and restore it at the end.

    Yields:
        The object of Hydra's own ``main``, which is needed for ``multirun``.
    """
    state, base = GlobalHydra.instance(), hydra.version.getbase()
    before, state.hydra = state.hydra, None
    try:
        # Not `hydra.initialize`, which looks through the stack of its caller for a name.
        with hydra.initialize_config_module(__package__, publish.ROOT, version_base="1.3"):
            yield GlobalHydra.instance().hydra
    finally:
        GlobalHydra.instance().hydra = before  # Hydra has replaced `state` by a copy
        hydra.version.VersionBase.instance().version_base = base


@contextmanager
def root(values: Mapping[str, Any], where: str) -> Iterator[str]:
    """Publish the defaults with a file's values; yield the name for Hydra.

    Args:
        values: The result of `read_file`; empty without a file.
        where: The file's name, for errors.
    """
    try:
        chosen, settings, options = _split(values)
        for group in GROUPS:
            default = chosen.get(group, publish.DEFAULTS[group])
            for name in [default] if isinstance(default, str) else default:
                publish.try_publish(group, name)
    except MetalossError as error:
        raise MetalossError(f"{where}: {error}") from error

    def fill(node: DictConfig, key: str) -> None:
        for name, value in (options.get(key, {}) if key else settings).items():
            try:
                OmegaConf.update(node, name, value, merge=True)
            except OmegaConfBaseException as error:
                # The key within the node is short: give it the full name.
                error.full_key = f"{key}.{error.full_key}" if key else error.full_key
                raise MetalossError(f"{where}: {explain(error)}") from error

    with publish.published_root(chosen, fill) as root_name:
        yield root_name


def from_hydra(composed: DictConfig, asked: Iterable[str] = ()) -> RunConfig:
    """Return the validated `RunConfig` of what Hydra composed of words with the keys ``asked``.

    Raises:
        MetalossError: If a value is missing, or a part refuses its options.
    """
    groups = {key.partition(".")[0] for key in asked}
    try:
        parts: dict[str, Any] = {}
        for group in GROUPS:
            node = composed[group]
            if group == "tracker":
                parts[group] = {str(name): _options(f"tracker.{name}", node[name]) for name in node}
            else:
                name, options = node["name"], _options(group, node)
                parts[group] = Selected(name=name, options=options, asked=group in groups)
        settings = {
            setting.name: composed[setting.name] for setting in dataclasses.fields(Settings)
        }
        return RunConfig(**parts, **settings)
    except OmegaConfBaseException as error:
        raise explain(error) from error


def _split(
    values: Mapping[str, Any],
) -> tuple[dict[str, str | list[str]], dict[str, Any], dict[str, Mapping[str, Any]]]:
    """Split a file's values into choices by group, settings, and options by key."""
    chosen: dict[str, str | list[str]] = {}
    settings: dict[str, Any] = {}
    options: dict[str, Mapping[str, Any]] = {}
    for key, value in values.items():
        if key not in GROUPS:
            settings[key] = value
        elif key == "tracker":
            if isinstance(value, list) and all(isinstance(name, str) for name in value):
                value = dict.fromkeys(value)
            if not isinstance(value, dict):
                raise MetalossError(
                    f"tracker={value}: expected names of trackers with their options"
                )
            chosen[key] = list(value)
            options |= {
                f"tracker.{name}": _mapping(f"tracker.{name}", value[name]) for name in value
            }
        else:
            given = dict(_mapping(key, {"name": value} if isinstance(value, str) else value))
            chosen[key] = given.pop("name", publish.DEFAULTS[key])
            options[key] = {
                renamed_key(f"{key}.{name}").removeprefix(f"{key}."): option
                for name, option in given.items()
            }
            if not isinstance(chosen[key], str):
                raise MetalossError(f"{key}.name={chosen[key]}: expected a name")
    for group, names in chosen.items():
        for name in [names] if isinstance(names, str) else names:
            if name not in registry.names(group):
                registry.get(group, name)
    return chosen, settings, options


def _mapping(key: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise MetalossError(f"{key}={value}: expected options by name")
    return value


def _options(key: str, node: Any) -> Any:
    if not isinstance(node, DictConfig) or "name" not in node:
        raise MetalossError(f"{key}={node}: expected options by name, such as {key}.OPTION=VALUE")
    name = str(node["name"])
    with open_dict(node):
        del node["name"]
    try:
        for part in node:
            _check_nested(node, part, key)
        return with_absolute_paths(OmegaConf.to_object(node))
    except (OmegaConfBaseException, ValueError, TypeError) as error:
        # An exception of the class itself; OmegaConf wraps a TypeError in one of its own.
        own: BaseException | None = error
        if isinstance(error, OmegaConfBaseException):
            own = error.__context__
            if type(own) is not TypeError:
                raise explain(error) from error
        where, reason = f"{key.partition('.')[0]}={name}: ", " ".join(str(own).split())
        raise MetalossError(where + reason.removeprefix(where)) from error


def _check_nested(node: DictConfig, name: Any, key: str) -> None:
    """Raise if options within options are refused, with their own place in the message."""
    if not dataclasses.is_dataclass(OmegaConf.get_type(node, name)):
        return
    try:
        OmegaConf.to_object(node[name])
    except MetalossError as error:
        raise MetalossError(str(error).replace(f"{key}.", f"{key}.{name}.")) from error
