"""Rows of many requests share runs of the model, and nothing else."""

from robustzs_serving.batching.batcher import Batcher
from robustzs_serving.batching.errors import ClosingError, DeadlineError, QueueFullError

__all__ = ["Batcher", "ClosingError", "DeadlineError", "QueueFullError"]
