"""Optimisations of a traced graph: algebra, common subexpressions, aliasing.

Imports nothing of ``core``.
"""
