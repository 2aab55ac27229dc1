"""Measuring robustness from outside: float32, white-box, by a maintained attack."""

from robustzs_training.evaluation.apgd import AttackOutcome, apgd_ce
from robustzs_training.evaluation.heldout import HeldOut, heldout_of
from robustzs_training.evaluation.robustness import Measured, compare, measure

__all__ = [
    "AttackOutcome",
    "HeldOut",
    "Measured",
    "apgd_ce",
    "compare",
    "heldout_of",
    "measure",
]
