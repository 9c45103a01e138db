"""The training step, which alone changes θ and φ: its state, its guard, and its compiled form.

May import ``batches`` and ``compilation``.
"""
