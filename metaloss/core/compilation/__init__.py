"""Pure functions as traced or compiled programs, and whether that pays.

Imports no other room of ``core``.
"""
