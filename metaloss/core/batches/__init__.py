"""Batches by number: for one run, for many runs at once, and for rows that do not fit the device.

May import ``compilation``.
"""
