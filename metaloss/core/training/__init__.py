"""The training loop: its steps, its records, and how it recovers from bad steps.

May import ``parts`` and what is below it.
"""
