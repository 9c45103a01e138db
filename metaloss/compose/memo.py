"""A cache of configurations that Hydra composed.

Hydra first composes the choices (``loss=mlp``, ``+preset=adalfl``). Then it sets values
(``loss.hidden=[8]``) in the result. The first takes nearly all of the time and is the same for all
settings of a study's row, so that its result is cached.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from metaloss import registry
from metaloss.config import Settings
from metaloss.errors import MetalossError
from metaloss.registry import GROUPS

Compose = Callable[[Sequence[Override]], DictConfig]

# Each takes about 0.1 MB.
_MOST = 1024
_SETTINGS = frozenset(setting.name for setting in dataclasses.fields(Settings))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Kept:
    """A composed configuration, with the options class of each part by group and name."""

    config: DictConfig
    classes: dict[tuple[str, str], type]

    @property
    def holds(self) -> bool:
        """Whether the names still belong to the same parts."""
        try:
            return all(
                registry.get(*part).config_class is known for part, known in self.classes.items()
            )
        except MetalossError:
            return False


_kept: OrderedDict[tuple[str, ...], _Kept] = OrderedDict()


def composed(overrides: Sequence[Override], compose: Compose) -> DictConfig:
    """Return what ``compose`` returns, calling it only for new choices.

    After an error, the words are composed again in full, so that the errors are those of
    ``compose``.
    """
    values = [override for override in overrides if _sets_value(override)]
    choices = [override for override in overrides if not _sets_value(override)]
    try:
        config = copy.deepcopy(_chosen(choices, compose))
        for override in values:  # as Hydra does
            OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
    except (HydraException, OmegaConfBaseException):
        return compose(overrides)
    return config


def _chosen(choices: Sequence[Override], compose: Compose) -> DictConfig:
    key = tuple(str(override.input_line) for override in choices)
    kept = _kept.get(key)
    if kept is None or not kept.holds:
        config = compose(choices)
        classes = {part: registry.get(*part).config_class for part in _parts(config)}
        kept = _kept[key] = _Kept(config=config, classes=classes)
        while len(_kept) > _MOST:
            _kept.popitem(last=False)
    _kept.move_to_end(key)
    return kept.config


def _sets_value(override: Override) -> bool:
    """Return whether Hydra applies a word after composing."""
    key = override.key_or_group
    if key in GROUPS:
        return isinstance(override.value(), dict)
    return key.partition(".")[0] in (GROUPS if "." in key else _SETTINGS)


def _parts(config: DictConfig) -> Iterator[tuple[str, str]]:
    for group in GROUPS:
        names: Iterable[object] = config[group] if group == "tracker" else [config[group]["name"]]
        yield from ((group, str(name)) for name in names)
