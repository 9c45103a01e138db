"""The tables of a study: its numbers, statistics and ranks, and their texts.

May import ``launch`` and ``spec``.
"""
