"""From a config to the objects of a run, and whether they fit each other.

May import ``steps`` and what is below it, and ``distributed``.
"""
