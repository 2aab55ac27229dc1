"""Threads in which texts are encoded: short work never waits behind long work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from robustzs_serving.errors import QueueFullError

T = TypeVar("T")

LONG = 512
"""Texts from which on work is long: about a second on one core."""

_MAX_SHORT = 64
_MAX_LONG = 8


class _Lane:
    def __init__(self, name: str, n_threads: int, max_inside: int) -> None:
        self.threads = ThreadPoolExecutor(n_threads, thread_name_prefix=f"robustzs-{name}")
        self.max_inside = max_inside
        self.n_inside = 0

    def left(self, future: asyncio.Future[T]) -> None:
        self.n_inside -= 1
        if not future.cancelled():
            future.exception()  # seen, even where nobody waits any more


class TextLanes:
    """Two lanes of work that takes seconds: one for little of it, one for much. Both bounded.

    Use from one event loop.
    """

    def __init__(self) -> None:
        self._short = _Lane("texts", 2, _MAX_SHORT)
        self._long = _Lane("trees", 1, _MAX_LONG)

    def start(self, work: Callable[[], T], *, n_texts: int) -> asyncio.Future[T]:
        """Begin as soon as there is a thread; whoever waits for it may give up, it goes on.

        Args:
            work: blocks.
            n_texts: that it encodes at most.

        Raises:
            QueueFullError: too much work waits in its lane.
        """
        lane = self._long if n_texts >= LONG else self._short
        if lane.n_inside >= lane.max_inside:
            raise QueueFullError(
                f"{lane.n_inside} sets of texts wait to be encoded already", hint="ask again later"
            )
        lane.n_inside += 1
        future = asyncio.get_running_loop().run_in_executor(lane.threads, work)
        future.add_done_callback(lane.left)
        return future

    async def close(self) -> None:
        """End the threads; what has not begun never does."""
        loop = asyncio.get_running_loop()
        for lane in (self._short, self._long):
            lane.threads.shutdown(wait=False, cancel_futures=True)
            await loop.run_in_executor(None, lane.threads.shutdown)
