"""The only place where θ and φ move: the state, a step, its guard, its compiled form.

May import ``batches`` and ``compilation``.
"""
