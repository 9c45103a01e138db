"""Pure functions as traced or compiled programs, and whether compilation is worthwhile.

Imports no other room of ``core``.
"""
