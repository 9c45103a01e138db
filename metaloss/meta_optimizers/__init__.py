"""Engines for the meta-gradient, and the outer rule."""
