"""Starts, tunes and shows the runs of a study.

May import ``spec``.
"""
