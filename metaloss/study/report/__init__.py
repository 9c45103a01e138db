"""One page of HTML about a run or a study.

May import ``plots`` and what is below it.
"""
