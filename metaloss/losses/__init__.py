"""Losses with parameters, and hand-made ones behind the same interface."""
