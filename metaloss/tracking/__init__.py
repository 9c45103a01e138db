"""Sinks for a run's events."""
