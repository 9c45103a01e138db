"""How θ moves: the functional model and pure inner optimizers."""
