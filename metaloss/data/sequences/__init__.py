"""Sequences: characters of a text, and generated signals.

May import the shared files of ``metaloss.data``, and no other room of it.
"""
