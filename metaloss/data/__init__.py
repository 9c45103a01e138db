"""Tasks: rows, splits, corruptions."""

from metaloss.data.tensors import TaskOptions, task_from_data

__all__ = ["TaskOptions", "task_from_data"]
