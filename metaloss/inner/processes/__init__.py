"""What the processes of a run exchange, and its derivatives.

Imports no other room of ``inner``.
"""
