"""Ready settings: ``+preset=NAME`` for a method, ``+paper=NAME`` for a row of a paper's table."""

from __future__ import annotations

from collections.abc import Mapping

from metaloss.compose.paper import PAPER
from metaloss.compose.presets import PRESETS, Preset

ADDED: Mapping[str, Mapping[str, Preset]] = {"preset": PRESETS, "paper": PAPER}
