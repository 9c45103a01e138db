"""Several processes: how they are launched, and what they compare.

May import ``storage``.
"""
