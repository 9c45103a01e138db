"""A learned loss in a loop of the user's own, and the meta-gradient alone.

May import ``parts`` and what is below it.
"""
