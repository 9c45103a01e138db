"""What a word with a plus adds: ``+preset=NAME`` a method, ``+paper=NAME`` a row of a table."""

from __future__ import annotations

from collections.abc import Mapping

from metaloss.compose.paper import PAPER
from metaloss.compose.presets import PRESETS, Preset

ADDED: Mapping[str, Mapping[str, Preset]] = {"preset": PRESETS, "paper": PAPER}
