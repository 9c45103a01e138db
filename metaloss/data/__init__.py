"""Tasks: rows, splits, and errors in the training rows."""

from metaloss.data.tensors import TaskOptions, task_from_data

__all__ = ["TaskOptions", "task_from_data"]
