"""Sequences: characters of a text, and signals that are generated.

May import the shared files of ``metaloss.data``, and no other room of it.
"""
