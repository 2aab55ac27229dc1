"""Rows of many requests share runs of the model, and nothing else."""

from robustzs_serving.batching.batcher import Batcher

__all__ = ["Batcher"]
