"""Batches by number: of one run, of many together, of rows that do not fit the device.

May import ``compilation``.
"""
