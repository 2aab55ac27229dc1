"""What the loop asks for, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from robustzs_training.data.base import Examples
from robustzs_training.objectives.base import Batch

ToBatch = Callable[[Examples, torch.device], Batch]
"""Adds labels, caption tokens or features; pixels may stay uint8, the loop divides them."""


class Trouble(Protocol):
    """What was found wrong with the data so far; part of a run's state."""

    def state_dict(self) -> dict[str, Any]:
        """As JSON has it."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting from there."""


class ExampleStream(Protocol):
    """Examples in an order that follows from the seed alone."""

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in one pass over the data."""

    @property
    def digest(self) -> str:
        """Sha256 over the data and its order."""

    @property
    def trouble(self) -> Trouble:
        """The count of what could not be used."""

    def epoch(self, epoch: int, *, skip: int = 0) -> Iterator[Examples]:
        """This process's share of every full batch of a pass, without the first ``skip``."""


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """How a run ended.

    Attributes:
        steps: Optimiser steps that the weights have seen, over all starts of the run.
        seconds: Of this start, from its first step.
        images_per_second: Of this start, over all processes; 0 when it had nothing to do.
        final_terms: Loss, its terms and accuracies, as last reported.
        checkpoint: The folder of the last checkpoint.
        interrupted: Stopped by a signal; the same command goes on.
    """

    steps: int
    seconds: float
    images_per_second: float
    final_terms: Mapping[str, float]
    checkpoint: Path
    interrupted: bool


def split(examples: Examples, n_parts: int) -> list[Examples]:
    """Cut a share into ``n_parts`` of equal size, in order; the size is a multiple of it."""
    size = len(examples) // n_parts
    return [_rows(examples, slice(i * size, (i + 1) * size)) for i in range(n_parts)]


def _rows(examples: Examples, rows: slice) -> Examples:
    labels, captions = examples.labels, examples.captions
    return replace(
        examples,
        indices=examples.indices[rows],
        keys=examples.keys[rows],
        pixels=examples.pixels[rows],
        labels=None if labels is None else labels[rows],
        captions=None if captions is None else captions[rows],
    )
