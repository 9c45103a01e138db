"""What is written: whole files or none, digests, the journal, checkpoints.

Imports no other room of ``core``.
"""
