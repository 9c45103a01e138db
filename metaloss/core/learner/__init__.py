"""A learned loss in the user's own training loop, and the meta-gradient as a function.

May import ``parts`` and what is below it.
"""
