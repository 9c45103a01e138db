"""Runs: how they begin, are resumed and end, with their folder and summary.

May import every other room but ``learner``.
"""
