"""What the processes of a run exchange, and the derivatives of that.

Imports no other room of ``inner``.
"""
