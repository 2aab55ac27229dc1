"""Which pictures of a source are measured: fixed by a seed, and as papers drew them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal, Protocol, get_args, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
import webdataset

from robustzs.errors import UsageError
from robustzs_training.data.base import Chunked, SampleSource

Sampling = Literal["numpy", "torch-randperm", "robustvlm"]
Places = npt.NDArray[np.int64]

_WORKERS = 4
_BATCH = 50
_BUFFER = 10_000


@runtime_checkable
class Reordered(Protocol):
    """A source whose examples stand in another order than in the library that it comes from."""

    @property
    def library_order(self) -> Places:
        """int64 ``[n]``: the place of each example in the library's order."""


@dataclass(frozen=True, kw_only=True)
class Draw:
    """A fixed subset.

    Attributes:
        n: How many pictures; ``None`` for all.
        seed: Of the draw.
        sampling: ``numpy``: a permutation by ``default_rng(seed)``. ``torch-randperm``: by a CPU
            generator with this seed, as QT-AFT's code has it, over the library's own order.
            ``robustvlm``: what the loader of FARE's evaluation gives first: shards dealt out to
            four processes, each shuffled in a buffer of 10,000, batches of 50 in turns.
    """

    n: int | None = None
    seed: int = 0
    sampling: Sampling = "numpy"

    def __post_init__(self) -> None:
        if self.n is not None and (isinstance(self.n, bool) or self.n < 1):
            raise UsageError(f"n is {self.n!r}", hint="take at least one picture")
        if isinstance(self.seed, bool) or self.seed < 0:
            raise UsageError(f"seed is {self.seed!r}", hint="a whole number, at least 0")
        if self.sampling not in get_args(Sampling):
            raise UsageError(
                f"unknown sampling {self.sampling!r}",
                hint=f"choose from {', '.join(get_args(Sampling))}",
            )

    def rows(self, usable: Places, source: SampleSource) -> Places:
        """The drawn ones of the ``usable`` examples of a source: int64, ascending."""
        if self.n is None or self.n >= len(usable):
            return usable
        if self.sampling == "numpy":
            order = np.random.default_rng(self.seed).permutation(len(usable))
            return np.sort(usable[order[: self.n]])
        if self.sampling == "torch-randperm":
            generator = torch.Generator().manual_seed(self.seed)
            order = torch.randperm(len(source), generator=generator).numpy()
            if isinstance(source, Reordered):
                order = np.argsort(source.library_order)[order]
        else:
            order = np.fromiter(_as_robustvlm(_chunks(source), self.seed), np.int64)
        return np.sort(order[np.isin(order, usable)][: self.n])


def _chunks(source: SampleSource) -> list[tuple[int, int]]:
    return list(source.chunks) if isinstance(source, Chunked) else [(0, len(source))]


def _as_robustvlm(chunks: list[tuple[int, int]], seed: int) -> Iterator[int]:
    workers = [_worker(chunks[number::_WORKERS], seed) for number in range(_WORKERS)]
    while workers:
        for worker in tuple(workers):
            batch = list(islice(worker, _BATCH))
            if not batch:
                workers.remove(worker)
            yield from batch


def _worker(chunks: list[tuple[int, int]], seed: int) -> Iterator[int]:
    rows = (row for start, stop in chunks for row in range(start, stop))
    # As a pipeline stage of that library: its way of drawing from the buffer is what counts.
    shuffle = webdataset.shuffle(_BUFFER, initial=_BUFFER, rng=random.Random(seed))
    return iter(shuffle(rows))
