"""Comparisons, statistics and pictures, from journals alone."""
