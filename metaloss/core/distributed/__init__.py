"""Several processes: how they start, and how they check that they agree.

May import ``storage``.
"""
