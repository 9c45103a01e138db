"""One page of HTML that holds all there is to see of a run or a study.

May import ``plots`` and what is below it.
"""
