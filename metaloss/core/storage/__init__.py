"""Files of a run: atomic writes, digests, the journal, checkpoints.

Imports no other room of ``core``.
"""
