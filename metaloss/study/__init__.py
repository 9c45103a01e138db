"""Comparisons, statistics and plots of finished runs."""
