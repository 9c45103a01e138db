"""The pictures of a run and of a study.

May import ``tables`` and what is below it.
"""
