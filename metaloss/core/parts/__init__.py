"""From a config to the objects of a run, with checks that they fit each other.

May import ``steps`` and what is below it, and ``distributed``.
"""
