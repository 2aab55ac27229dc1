"""Many images, a few at a time: decoded ahead in threads, in order, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from robustzs.errors import ImageError

Item = TypeVar("Item")
Pixels = npt.NDArray[np.float32]

_MAX_WORKERS = 4  # decoding needs fewer cores than inference


class Decoded(Generic[Item]):
    """One item with its pixels, or with what is wrong with it.

    Attributes:
        item: as it was given.
        pixels: ``[3, H, W]``, or ``None``.
        error: or ``None``.
    """

    def __init__(
        self, item: Item, pixels: Pixels | None = None, error: ImageError | None = None
    ) -> None:
        self.item = item
        self.pixels = pixels
        self.error = error


def decode_ahead(
    items: Iterable[Item],
    to_pixels: Callable[[Item], Pixels],
    *,
    batch_size: int,
    workers: int,
) -> Iterator[list[Decoded[Item]]]:
    """Batches of decoded items, in order, while the next batch is decoded in other threads.

    At most ``2 * batch_size`` items are held. ``items`` is read in the caller's thread.

    Args:
        items: may be endless.
        to_pixels: called in other threads; an ``ImageError`` becomes part of the result, any other
            exception is raised here.
        batch_size: items per batch, >= 1.
        workers: threads, >= 1.
    """

    def decode(item: Item) -> Decoded[Item]:
        try:
            return Decoded(item, to_pixels(item))
        except ImageError as error:
            return Decoded(item, error=error)

    source = iter(items)
    pending: deque[Future[Decoded[Item]]] = deque()
    pool = ThreadPoolExecutor(min(workers, _MAX_WORKERS), thread_name_prefix="robustzs-decode")
    try:
        while True:
            missing = 2 * batch_size - len(pending)
            pending.extend(pool.submit(decode, item) for item in islice(source, missing))
            if not pending:
                return
            yield [pending.popleft().result() for _ in range(min(batch_size, len(pending)))]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
