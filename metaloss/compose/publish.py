"""Stores the parts' options as typed nodes in Hydra's config store."""

from __future__ import annotations

import copy
import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from metaloss import registry
from metaloss.compose.paper import PAPER
from metaloss.compose.presets import PRESETS, Preset
from metaloss.config import Settings
from metaloss.errors import MetalossError, first_line
from metaloss.registry import GROUPS, Part

ROOT = "metaloss"
DEFAULTS: dict[str, str | list[str]] = {
    "task": "digits",
    "model": "mlp",
    "loss": "mlp",
    "schedule": "online",
    "start": "imitate",
    "meta_optimizer": "mixed",
    "inner": "sgd",
    "tracker": ["console"],
}

# Hydra's store and state are global: only one composition at a time.
lock = threading.RLock()


def publish(group: str, name: str) -> None:
    """Put a part's options into Hydra's store, unless they are there.

    Raises:
        MetalossError: If the part is unknown, fails to load, or has options of an unsupported
            type.
    """
    part = registry.get(group, name)
    store = ConfigStore.instance()
    stored = store.repo.get(group, {}).get(f"{name}.yaml")
    if stored is not None and OmegaConf.get_type(stored.node) is part.config_class:
        return
    package = f"tracker.{name}" if group == "tracker" else group
    store.store(group=group, name=name, node=_part_node(part), package=package, provider="metaloss")


def publish_row(name: str) -> None:
    """Publish a row of the paper, unless it is there.

    Hydra copies its whole store for every configuration, and most use no row.

    The options of a chosen part are stored under the names of the row and of the part. The root
    looks them up, and finds none if another part is chosen.
    """
    if f"{name}.yaml" in ConfigStore.instance().repo.get("paper", {}):
        return
    row, always = PAPER[name], {}
    for group, options in row.options.items():
        if group not in row.choices:
            always[group] = options
            continue
        ConfigStore.instance().store(
            group=f"of_paper/{group}",
            name=f"{name}.{row.choices[group]}",
            package=group,
            provider="metaloss",
            node=copy.deepcopy(dict(options)),
        )
    _store_added("paper", name, row, always)


def publish_all() -> None:
    """Publish all parts; a failing one is an error only if it is chosen."""
    for group in GROUPS:
        for name in registry.names(group):
            try_publish(group, name)
    for name in PAPER:
        publish_row(name)


def try_publish(group: str, name: str) -> None:
    """Publish a part; a failing one is an error only if it is chosen."""
    try:
        publish(group, name)
    except MetalossError:
        return


@contextmanager
def published_root(
    file_choices: Mapping[str, str | list[str]],
    fill: Callable[[DictConfig, str], None],
) -> Iterator[str]:
    """Publish the root and the presets; yield the root's name.

    Args:
        file_choices: The choices of a file, by group; other groups have the defaults.
        fill: Writes the file's values into a node. It is called with a copy of the root and of each
            of the file's chosen parts, and with its key (``""`` for the root). As the values are in
            the node of the part, another choice does not have them.
    """
    store = ConfigStore.instance()
    choices = {**DEFAULTS, **file_choices}
    with lock:
        before = copy.copy(store.repo)
        for group in GROUPS:
            # A copy, so that the values of a file are removed afterwards. It is made even if no
            # part could be loaded, so that a word with the group's name is a choice.
            table = store.repo.get(group, {})
            store.repo[group] = {
                file: node
                for file, node in table.items()
                if registry.is_known(group, file.removesuffix(".yaml"))
            }
        for name, preset in PRESETS.items():
            _store_added("preset", name, preset, preset.options)
        root = OmegaConf.structured(Settings)
        _lift_readonly(root)
        fill(root, "")
        with open_dict(root):
            for group in GROUPS:
                root[group] = {}
            root["defaults"] = [
                "_self_",
                *({group: choices[group]} for group in GROUPS),
                {"paper": None},
                *(
                    {f"optional of_paper/{g}": f"${{paper}}.${{{g}}}"}
                    for g in store.repo.get("of_paper", ())
                ),
            ]
        try:
            store.store(name=ROOT, node=root, provider="metaloss")
            for group, chosen in file_choices.items():
                for name in [chosen] if isinstance(chosen, str) else chosen:
                    _fill_part(store.repo[group], group, name, fill)
            yield ROOT
        finally:
            store.repo = before


def _store_added(
    kind: str, name: str, added: Preset, options: Mapping[str, Mapping[str, Any]]
) -> None:
    choices = [{f"override /{group}": choice} for group, choice in added.choices.items()]
    ConfigStore.instance().store(
        group=kind,
        name=name,
        package="_global_",
        provider="metaloss",
        node={"defaults": [*choices, "_self_"], **copy.deepcopy({**options, **added.settings})},
    )


def _fill_part(
    table: dict[str, Any], group: str, name: str, fill: Callable[[DictConfig, str], None]
) -> None:
    stored = table.get(f"{name}.yaml")
    if stored is None:  # it failed to load, which is an error only if it stays chosen
        return
    node = copy.deepcopy(stored.node)
    fill(node, f"tracker.{name}" if group == "tracker" else group)
    table[f"{name}.yaml"] = dataclasses.replace(stored, node=node)


def _part_node(part: Part) -> DictConfig:
    owner = f"{part.group} {part.name!r} ({part.source})"
    config_class = part.config_class
    if any(option.name == "name" for option in dataclasses.fields(config_class)):
        raise MetalossError(f"{owner} has an option 'name', which is reserved: rename it")
    try:
        node = OmegaConf.structured(config_class)
    except (OmegaConfBaseException, TypeError, ValueError) as error:
        reason = first_line(error)
        raise MetalossError(f"{owner} has options of an unsupported type: {reason}") from error
    _lift_readonly(node)
    with open_dict(node):
        node["name"] = part.name
    node._get_node("name")._set_flag("readonly", True)
    return node


def _lift_readonly(node: DictConfig) -> None:
    """Make the node of a frozen dataclass writable, so that overrides can be merged into it."""
    OmegaConf.set_readonly(node, None)
    for key in node:
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_missing():
            _lift_readonly(child)
