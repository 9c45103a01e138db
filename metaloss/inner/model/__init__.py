"""A module as a pure function of its parameters, buffers and a key.

May import ``processes``.
"""
