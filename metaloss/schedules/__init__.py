"""Schedules: when θ is reset, how long the unroll is, when φ is updated."""

from metaloss.schedules.offline import Offline
from metaloss.schedules.online import Online
from metaloss.schedules.replay import Replay
from metaloss.schedules.static import Static

__all__ = ["Offline", "Online", "Replay", "Static"]
