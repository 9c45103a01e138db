"""Trackers: what receives the events of a run."""
