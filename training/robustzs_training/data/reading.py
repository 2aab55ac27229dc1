"""One process's share of one batch: read, decoded, replaced where unreadable, cropped.

This runs in loader processes. It returns what went wrong instead of raising it: the main process
counts, and an error keeps its type and text on the way.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.utils.data

from robustzs.errors import DataError, ImageError, TooManyBadSamplesError
from robustzs_training.data.base import Chunked, Keyed, Sample, SampleSource
from robustzs_training.data.randomness import generator
from robustzs_training.data.transform import ImageTransform

REPLACEMENT_TRIES = 16


@dataclass(frozen=True)
class Request:
    """What to read.

    Attributes:
        epoch: From 0.
        indices: Examples.
    """

    epoch: int
    indices: tuple[int, ...]


@dataclass
class Answer:
    """What was read.

    Attributes:
        indices: The examples that are there now: those asked for, or their replacements.
        keys: Their names.
        pixels: uint8 ``[B, 3, H, W]``; ``None`` after an error.
        labels: As the source read them.
        captions: As the source read them.
        n_read: Images that were tried.
        unreadable: Names and reasons of those that could not be used.
        error: Why the run cannot go on.
    """

    indices: list[int] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    pixels: torch.Tensor | None = None
    labels: list[int | None] = field(default_factory=list)
    captions: list[str | None] = field(default_factory=list)
    n_read: int = 0
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    error: DataError | None = None

    def pin_memory(self) -> Answer:
        """Called by the DataLoader's pinning thread."""
        if self.pixels is not None:
            self.pixels = self.pixels.pin_memory()
        return self


class BatchReader(torch.utils.data.Dataset[Answer]):
    """Reads requests; one copy lives in every loader process.

    Args:
        source: What to read from.
        transform: How images become pixels.
    """

    def __init__(self, source: SampleSource, transform: ImageTransform) -> None:
        self._source = source
        self._transform = transform

    def __getitem__(self, request: Request) -> Answer:
        answer = Answer()
        pixels = []
        try:
            for index in request.indices:
                pixels.append(self._read_one(index, request.epoch, answer))
        except DataError as error:
            answer.error = error
        else:
            answer.pixels = torch.stack(pixels)
        return answer

    def _read_one(self, index: int, epoch: int, answer: Answer) -> torch.Tensor:
        """Read an example, or another one in its place.

        Raises:
            TooManyBadSamplesError: Nothing usable was found.
            DataError: The source is gone.
        """
        rng: np.random.Generator | None = None
        candidate = index
        for _ in range(1 + REPLACEMENT_TRIES):
            answer.n_read += 1
            try:
                sample = self._source.read(candidate)
                pixels = self._transform(sample.image, epoch=epoch, index=candidate)
            except ImageError as error:
                answer.unreadable.append((self._key_of(candidate), error.message))
                if rng is None:
                    rng = generator("replacement", self._transform.seed, epoch, index)
                candidate = self._another(index, rng)
                continue
            self._keep(candidate, sample, answer)
            return pixels
        raise TooManyBadSamplesError(
            f"{self._key_of(index)} is unreadable, and so are {REPLACEMENT_TRIES} images "
            f"that were tried in its place: {answer.unreadable[-1][1]}",
            hint="check that the data are complete and mounted",
        )

    def _another(self, index: int, rng: np.random.Generator) -> int:
        """Any example; one of the same chunk where reading across chunks is dear."""
        start, stop = 0, len(self._source)
        if isinstance(self._source, Chunked):
            start, stop = next(c for c in self._source.chunks if c[0] <= index < c[1])
        return int(rng.integers(start, stop))

    def _key_of(self, index: int) -> str:
        source = self._source
        return source.key_of(index) if isinstance(source, Keyed) else f"example {index}"

    @staticmethod
    def _keep(index: int, sample: Sample, answer: Answer) -> None:
        answer.indices.append(index)
        answer.keys.append(sample.key)
        answer.labels.append(sample.label)
        answer.captions.append(sample.caption)
