"""Calling functions in other processes: here, or wherever a plugin's executor has them.

May import ``training`` and what is below it.
"""
