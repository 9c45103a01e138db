"""Contract checks for the author of a plugin."""
