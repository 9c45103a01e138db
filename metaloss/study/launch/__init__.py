"""How the runs of a study are started, tuned and watched.

May import ``spec``.
"""
