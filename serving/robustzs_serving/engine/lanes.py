"""Threads in which texts are encoded: short work never waits behind long work."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from robustzs_serving.errors import QueueFullError

T = TypeVar("T")

LONG = 512
"""Texts from which on work is long: about a second on one core."""

# Of a lane in all, and of one caller in it.
_MAX_SHORT, _SHARE_SHORT = 128, 64
_MAX_LONG, _SHARE_LONG = 8, 2


class _Lane:
    def __init__(self, name: str, n_threads: int, max_inside: int, share: int) -> None:
        self.threads = ThreadPoolExecutor(n_threads, thread_name_prefix=f"robustzs-{name}")
        self.max_inside = max_inside
        self.share = share
        self.inside: Counter[str] = Counter()

    def enter(self, caller: str) -> None:
        n_inside = self.inside.total()
        if n_inside >= self.max_inside:
            raise QueueFullError(
                f"{n_inside} sets of texts wait to be encoded already", hint="ask again later"
            )
        if self.inside[caller] >= self.share:
            raise QueueFullError(
                f"{self.inside[caller]} sets of texts of yours wait to be encoded already",
                hint="ask again later",
            )
        self.inside[caller] += 1

    def left(self, caller: str, future: asyncio.Future[T]) -> None:
        self.inside[caller] -= 1
        if not self.inside[caller]:
            del self.inside[caller]
        if not future.cancelled():
            future.exception()  # seen, even where nobody waits any more


class TextLanes:
    """Two lanes of work that takes seconds: one for little of it, one for much. Both bounded.

    No caller fills a lane alone: of the long one a quarter is as much as anybody gets.

    Use from one event loop.
    """

    def __init__(self) -> None:
        self._short = _Lane("texts", 2, _MAX_SHORT, _SHARE_SHORT)
        self._long = _Lane("trees", 1, _MAX_LONG, _SHARE_LONG)

    def start(self, work: Callable[[], T], *, n_texts: int, caller: str = "") -> asyncio.Future[T]:
        """Begin as soon as there is a thread; whoever waits for it may give up, it goes on.

        Args:
            work: blocks.
            n_texts: that it encodes at most.
            caller: whose work it is.

        Raises:
            QueueFullError: too much work waits in its lane, or too much of this caller's.
        """
        lane = self._long if n_texts >= LONG else self._short
        lane.enter(caller)
        future = asyncio.get_running_loop().run_in_executor(lane.threads, work)
        future.add_done_callback(partial(lane.left, caller))
        return future

    async def close(self) -> None:
        """End the threads; what has not begun never does."""
        loop = asyncio.get_running_loop()
        for lane in (self._short, self._long):
            lane.threads.shutdown(wait=False, cancel_futures=True)
            await loop.run_in_executor(None, lane.threads.shutdown)
