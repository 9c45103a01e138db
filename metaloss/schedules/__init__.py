"""When θ is reset, how long the unroll is, when φ moves."""

from metaloss.schedules.offline import Offline
from metaloss.schedules.online import Online
from metaloss.schedules.static import Static

__all__ = ["Offline", "Online", "Static"]
