"""Engines for the meta-gradient, and the update rule of φ."""
