"""A run as users know it: begun, resumed, of many seeds, with its folder and summary.

May import every other room but ``learner``.
"""
