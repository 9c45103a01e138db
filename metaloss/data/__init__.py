"""Tasks: rows, splits, corruptions."""
