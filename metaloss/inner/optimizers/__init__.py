"""Inner optimizers: pure updates that equal those of ``torch.optim``.

Imports no other room of ``inner``.
"""
