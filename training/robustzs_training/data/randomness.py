"""Random numbers that depend on what they are for, and on nothing that happened before."""

from __future__ import annotations

from typing import Literal

import numpy as np

Purpose = Literal["order", "augmentation", "replacement", "captions"]
_STREAMS: dict[Purpose, int] = {"order": 1, "augmentation": 2, "replacement": 3, "captions": 4}


def generator(purpose: Purpose, seed: int, *numbers: int) -> np.random.Generator:
    """A stream of its own for each purpose, seed and numbers (epoch, example)."""
    return np.random.default_rng([_STREAMS[purpose], seed, *numbers])
