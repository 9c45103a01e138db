"""How φ begins."""
