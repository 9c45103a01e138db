"""Hugging Face's Trainer with a learned loss."""

from metaloss_transformers.trainer import LearnedLossTrainer

__all__ = ["LearnedLossTrainer"]
