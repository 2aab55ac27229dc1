"""Many images in requests of bounded size: read a few at a time, answered in order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from robustzs_client._images import ImageInput, NamedImage, read_image, unreadable
from robustzs_client._models import AnswerError
from robustzs_client._settings import Batching

T = TypeVar("T")

Progress = Callable[[int, "int | None"], None]
"""Told after each answer how many there are, and of how many, once that is known."""


@dataclass(frozen=True)
class Batch:
    """Images that go out together, and between them the rows of those that cannot be read."""

    rows: tuple[NamedImage | AnswerError, ...]

    @property
    def images(self) -> tuple[NamedImage, ...]:
        """What goes out."""
        return tuple(row for row in self.rows if isinstance(row, NamedImage))

    def merged(self, answers: list[T]) -> list[T | AnswerError]:
        """The answers, one for each of ``images``, with the other rows in their places."""
        following = iter(answers)
        return [row if isinstance(row, AnswerError) else next(following) for row in self.rows]


class Batches:
    """Reads images into batches, and counts; used by one thread at a time.

    Args:
        items: May be endless.
        batching: Bounds of a batch.
        progress: Told by ``count``.
    """

    def __init__(
        self,
        items: Iterable[ImageInput | AnswerError],
        batching: Batching,
        progress: Progress | None = None,
    ) -> None:
        self._batches = self._cut(iter(items), batching)
        self._progress = progress
        self._found = 0
        self._done = 0
        self._all_found = False

    def next(self) -> Batch | None:
        """The next batch; ``None`` after the last."""
        return next(self._batches, None)

    def count(self) -> None:
        """One more answer is there."""
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._found if self._all_found else None)

    def _cut(
        self, items: Iterator[ImageInput | AnswerError], batching: Batching
    ) -> Iterator[Batch]:
        rows: list[NamedImage | AnswerError] = []
        size = 0
        for item in items:
            row = item if isinstance(item, AnswerError) else _read(item)
            self._found += 1
            more = len(row.data) if isinstance(row, NamedImage) else 0
            if rows and (len(rows) == batching.max_images or size + more > batching.max_bytes):
                yield Batch(tuple(rows))
                rows, size = [], 0
            rows.append(row)
            size += more
        self._all_found = True
        if rows:
            yield Batch(tuple(rows))


def named(
    images: Iterable[ImageInput], names: Iterable[str] | None
) -> Iterator[ImageInput | AnswerError]:
    """The images under other names than their own.

    Raises:
        ValueError: There are not as many names as images.
    """
    if names is None:
        yield from images
        return
    for image, name in zip(images, names, strict=True):
        row = _read(image)
        if isinstance(row, NamedImage):
            yield NamedImage(name, row.data)
        else:
            yield row.model_copy(update={"image": name})


def _read(image: ImageInput) -> NamedImage | AnswerError:
    """An image, or the row that says why it cannot be read: one bad file fails alone."""
    try:
        return read_image(image)
    except OSError as error:
        name = os.fspath(image) if isinstance(image, (str, os.PathLike)) else "file"
        return unreadable(name, f"{name!r} cannot be read: {error.strerror or 'damaged'}")
