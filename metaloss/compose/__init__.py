"""Makes a typed `RunConfig` from ``KEY=VALUE`` words, a file or a mapping."""

from metaloss.compose.added import ADDED
from metaloss.compose.mapping import to_overrides
from metaloss.compose.paper import PAPER
from metaloss.compose.presets import PRESETS, Preset
from metaloss.compose.resolve import compose, from_hydra, root
from metaloss.compose.unused import refuse_unused, shared_words
from metaloss.compose.yaml_file import chosen_name, read_file, to_dict, to_yaml

__all__ = [
    "ADDED",
    "PAPER",
    "PRESETS",
    "Preset",
    "chosen_name",
    "compose",
    "from_hydra",
    "read_file",
    "refuse_unused",
    "root",
    "shared_words",
    "to_dict",
    "to_overrides",
    "to_yaml",
]
