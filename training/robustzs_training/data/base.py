"""What the training loop asks of data: examples in a fixed order, and nothing else.

Every source is **indexed**: example ``i`` can be read by itself. Order and augmentation then follow
from ``(seed, epoch, i)`` alone, so they are the same for any number of loader processes, and a run
that was killed goes on with the next batch without reading the ones before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from PIL import Image

from robustzs.labels import LabelSet


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One example as its source has it.

    Attributes:
        key: Names it for people and in reports, the same on every machine: a relative path.
        image: Decoded, RGB, upright.
        label: Its place in the source's ``labels``; ``None`` where the source has none.
        caption: What is in the picture; ``None`` where nobody said.
    """

    key: str
    image: Image.Image
    label: int | None = None
    caption: str | None = None


class SampleSource(Protocol):
    """Examples by number. Picklable, and without open files: loader processes get a copy."""

    @property
    def labels(self) -> LabelSet | None:
        """The classes that ``Sample.label`` counts through; ``None`` without classes."""

    @property
    def label_of(self) -> torch.Tensor | None:
        """int64 ``[n]``: the labels of all examples without reading one; ``None`` without."""

    @property
    def digest(self) -> str:
        """Sha256, in hex, over what makes the examples what they are: names, sizes, captions."""

    def __len__(self) -> int: ...

    def caption_of(self, index: int) -> str | None:
        """The caption without reading the image; ``None`` where there is none."""

    def read(self, index: int) -> Sample:
        """Read one example.

        Raises:
            ImageError: The picture cannot be used. The loop counts it and goes on.
            DataError: The source itself is gone or damaged. The loop stops.
        """


TroubleKind = Literal["unreadable-image", "missing-caption", "missing-label", "unresolved-name"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something wrong that a source knows of without reading an image.

    Attributes:
        kind: What.
        count: How often.
        total: Out of how many.
        first: Some of those concerned, by name.
    """

    kind: TroubleKind
    count: int
    total: int
    first: tuple[str, ...] = ()


@runtime_checkable
class Surveyed(Protocol):
    """A source that counted its own troubles, so that they need not be met one by one."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """One for each kind that was looked for, also when nothing was found."""


@runtime_checkable
class Chunked(Protocol):
    """A source in which neighbours are cheap to read after each other: shards."""

    @property
    def chunks(self) -> Sequence[tuple[int, int]]:
        """Ranges ``[start, stop)`` of examples, contiguous and ascending, that cover all."""


@runtime_checkable
class Keyed(Protocol):
    """A source that names its examples without reading them."""

    def key_of(self, index: int) -> str:
        """The ``key`` of an example."""


@runtime_checkable
class Lean(Protocol):
    """A source that is large because of its captions."""

    def for_workers(self) -> SampleSource:
        """The same images and keys for loader processes; ``caption_of`` is then asked of self."""


@dataclass(frozen=True, kw_only=True)
class Examples:
    """A batch as a loader gives it; on the CPU.

    Attributes:
        indices: int64 ``[B]``, places in the source.
        keys: Names, for reports.
        pixels: uint8 ``[B, 3, H, W]``, 0 to 255; the loop divides on its device.
        labels: int64 ``[B]`` or ``None``.
        captions: One for each image, or ``None`` where the source has none.
    """

    indices: torch.Tensor
    keys: tuple[str, ...]
    pixels: torch.Tensor
    labels: torch.Tensor | None = None
    captions: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.keys)
