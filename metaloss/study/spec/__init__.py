"""The description of a study: rows, seeds, settings, its YAML file, and its executor.

Imports no other room of ``study``.
"""
