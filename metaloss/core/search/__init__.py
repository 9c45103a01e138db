"""How a loss is found without gradients: the loop, its candidates, its workers.

May import ``training`` and what is below it.
"""
