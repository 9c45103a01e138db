"""Targets: classes, yes/no answers and values; how they are measured, split and corrupted.

May import the shared files of ``metaloss.data``, and no other room of it.
"""
