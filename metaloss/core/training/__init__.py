"""The one loop over training steps, what it records, and how it recovers.

May import ``parts`` and what is below it.
"""
