"""A module as a pure function: what it is called with, and what is set for a pass and put back.

May import ``processes``.
"""
