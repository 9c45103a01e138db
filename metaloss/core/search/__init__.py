"""Finds a loss without gradients: the loop of a search, its candidates, its workers.

May import ``training`` and what is below it.
"""
