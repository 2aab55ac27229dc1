"""The training loop on Accelerate: one step, what is kept of it, and when it stops."""

from robustzs_training.loop.contract import ExampleStream, RunResult, ToBatch
from robustzs_training.loop.preflight import PreflightReport, preflight
from robustzs_training.loop.trainer import Trainer

__all__ = [
    "ExampleStream",
    "PreflightReport",
    "RunResult",
    "ToBatch",
    "Trainer",
    "preflight",
]
