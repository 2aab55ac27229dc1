"""A micro-batcher: rows that wait at the same time run at the same time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from robustzs.backends.base import Float32Array
from robustzs.errors import BackendUnavailableError, InferenceError, UsageError
from robustzs_serving.errors import DeadlineError, QueueFullError, ShuttingDownError
from robustzs_serving.observe import record
from robustzs_serving.observe.metrics import Metrics

_logger = logging.getLogger(__name__)
_WHITE = np.float32(255.0)

UInt8Array = npt.NDArray[np.uint8]
Run = Callable[[Float32Array], Float32Array]
"""Pixels ``[B, 3, H, W]`` to features ``[B, D]``; blocks, in as many threads as ``in_flight``."""


@dataclass(eq=False)
class _Row:
    """One image: waiting until it is taken into a batch, or until its future is done."""

    pixels: UInt8Array
    future: asyncio.Future[Float32Array]
    deadline: float
    since: float = field(default_factory=time.monotonic)
    waits: bool = True
    began: float = 0.0  # of the run that answered it
    ended: float = 0.0
    n_rows: int = 0


class Batcher:
    """Runs the model on rows that different requests submit, in threads of its own.

    A batch is what waits when the model is free, at most ``max_rows``; a row that finds the model
    idle waits up to ``wait_seconds`` for company. Batches are padded with black rows to the next
    of ``buckets``, so that the model sees few shapes, all run before in ``warm``. Whatever shares
    its batch, a row's features are the same within one padded shape, bit for bit (as far as the
    engine computes rows apart, which is tested on the embedded model); across shapes the engine
    may choose other kernels.

    Where a batch raises, each of its rows runs once more alone, so that only the row at fault
    fails; where nothing answers that could run it, all fail at once. Use from one event loop.

    Args:
        run: the model.
        shape: of one row, ``(3, H, W)``.
        max_rows: of a batch, >= 1.
        wait_seconds: >= 0.
        buckets: padded sizes, ascending; the last is at least ``max_rows``.
        queue_rows: rows that may wait, >= 1.
        in_flight: batches that run at once, >= 1; more than one where the model is elsewhere.
        max_padding: share of a run that may be padding where fewer rows would fill a smaller size,
            in [0, 1]; the rows left over run next. Worth it where padding costs as much as images.
        metrics: what is counted.
    """

    def __init__(
        self,
        run: Run,
        *,
        shape: tuple[int, int, int],
        max_rows: int = 16,
        wait_seconds: float = 0.002,
        buckets: Sequence[int] = (1, 2, 4, 8, 16),
        queue_rows: int = 256,
        in_flight: int = 1,
        max_padding: float = 1.0,
        metrics: Metrics | None = None,
    ) -> None:
        if min(max_rows, queue_rows, in_flight) < 1 or not wait_seconds >= 0.0:
            raise UsageError(
                f"max_rows {max_rows}, queue_rows {queue_rows} and in_flight {in_flight} must be "
                f"at least 1, wait_seconds {wait_seconds} at least 0"
            )
        if list(buckets) != sorted(set(buckets)) or not buckets or buckets[0] < 1:
            raise UsageError(f"buckets {tuple(buckets)} must ascend from at least 1")
        if buckets[-1] < max_rows:
            raise UsageError(f"the last bucket {buckets[-1]} is below max_rows {max_rows}")
        self._run = run
        self._shape = shape
        self._max_rows = max_rows
        self._wait_seconds = wait_seconds
        self._buckets = tuple(buckets)
        self._queue_rows = queue_rows
        self._max_padding = max_padding
        self._metrics = metrics or Metrics()
        self._rows: deque[_Row] = deque()
        self._n_waiting = 0
        self._threads = ThreadPoolExecutor(in_flight, thread_name_prefix="robustzs-model")
        self._free = asyncio.Semaphore(in_flight)
        self._running: set[asyncio.Task[None]] = set()
        self._padded: dict[tuple[int, int], Float32Array] = {}  # by thread and size
        self._arrived = asyncio.Event()
        self._full = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    @property
    def free_rows(self) -> int:
        """Rows that may still be submitted."""
        return max(0, self._queue_rows - self._n_waiting)

    async def warm(self) -> None:
        """Run every padded shape once, so that no request pays for memory and kernels.

        Raises:
            BackendError: the engine failed.
        """
        loop = asyncio.get_running_loop()
        for size in self._buckets:
            await loop.run_in_executor(self._threads, self._run_rows, [], size)

    async def submit(self, pixels: UInt8Array, *, deadline: float) -> Float32Array:
        """Features ``[D]`` of one image.

        Args:
            pixels: uint8 ``[3, H, W]``; the model gets them divided by 255, as float32.
            deadline: on ``time.monotonic``'s clock.

        Raises:
            QueueFullError: too many rows wait.
            DeadlineError: the deadline passed first; the row is not run if it was not yet.
            ShuttingDownError: ``close`` was called.
            BackendError: the engine failed on this row, alone, too.
        """
        if self._closing:
            raise ShuttingDownError("the service is shutting down", hint="ask again")
        if self._n_waiting >= self._queue_rows:
            raise QueueFullError(
                f"{self._n_waiting} images wait for the model already", hint="ask again later"
            )
        if pixels.shape != self._shape or pixels.dtype != np.uint8:
            raise UsageError(
                f"a row must be uint8 {list(self._shape)}, got {pixels.dtype} {list(pixels.shape)}"
            )
        loop = asyncio.get_running_loop()
        row = _Row(pixels, loop.create_future(), deadline)
        if time.monotonic() >= deadline:
            self._metrics.dropped("deadline")
            raise _late()
        timer = loop.call_later(deadline - row.since, _expire, row)
        self._take_in(row)
        try:
            features = await row.future
        finally:
            timer.cancel()
        record("queue", row.since, row.began)
        record("model", row.began, row.ended, {"rows": row.n_rows})
        return features

    async def close(self, *, drain: bool = True) -> None:
        """Take nothing new, finish what waits (or refuse it), end the thread.

        Args:
            drain: finish what waits; else it gets a ``ShuttingDownError``.
        """
        self._closing = True
        if not drain:
            for row in self._rows:
                _fail(row, ShuttingDownError("the service is shutting down", hint="ask again"))
        self._arrived.set()
        self._full.set()
        if self._task is not None:
            await self._task
        await asyncio.gather(*self._running)
        self._threads.shutdown(wait=False)
        self._padded.clear()

    def _take_in(self, row: _Row) -> None:
        self._rows.append(row)
        self._count(+1)
        row.future.add_done_callback(lambda future: self._dropped(row))
        self._arrived.set()
        if self._n_waiting >= self._max_rows:
            self._full.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work(), name="batcher")

    def _dropped(self, row: _Row) -> None:
        """A future is done: if its row still waits, it makes room at once."""
        if row.waits:
            row.waits = False
            self._count(-1)
            self._metrics.dropped("cancelled" if row.future.cancelled() else "deadline")

    def _count(self, change: int) -> None:
        self._n_waiting += change
        self._metrics.queued(self._n_waiting)

    async def _work(self) -> None:
        while True:
            if self._rows:
                await self._free.acquire()
                await self._wait_for_company(self._rows[0])
                self._begin(self._take())
            elif self._closing:
                return
            else:
                self._arrived.clear()
                await self._arrived.wait()

    async def _wait_for_company(self, first: _Row) -> None:
        left = first.since + self._wait_seconds - time.monotonic()
        if left <= 0.0 or self._n_waiting >= self._max_rows or self._closing:
            return
        self._full.clear()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._full.wait(), left)

    def _take(self) -> list[_Row]:
        """The next batch: rows that somebody still waits for, oldest first."""
        batch: list[_Row] = []
        now = time.monotonic()
        n_rows = self._rows_of_a_run(min(max(self._n_waiting, 1), self._max_rows))
        while self._rows and len(batch) < n_rows:
            row = self._rows.popleft()
            if now >= row.deadline:
                _fail(row, _late())
            if not row.future.done():
                row.waits = False
                self._count(-1)
                self._metrics.waited(now - row.since)
                batch.append(row)
        return batch

    def _rows_of_a_run(self, n_waiting: int) -> int:
        """How many of the rows that wait run together."""
        size = self._padded_size(n_waiting)
        if size - n_waiting <= self._max_padding * size:
            return n_waiting
        return max((size for size in self._buckets if size < n_waiting), default=n_waiting)

    def _padded_size(self, n_rows: int) -> int:
        return next(size for size in self._buckets if size >= n_rows)

    def _begin(self, batch: list[_Row]) -> None:
        if not batch:
            self._free.release()
            return
        task = asyncio.get_running_loop().create_task(self._answer(batch), name="batch")
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._free.release()

    async def _answer(self, batch: list[_Row]) -> None:
        error = await self._attempt(batch)
        if error is None:
            return
        if len(batch) == 1 or isinstance(error, BackendUnavailableError):
            for row in batch:
                _fail(row, error)
            return
        _logger.warning("a batch of %d failed, its rows run alone: %s", len(batch), error)
        for row in batch:
            if row.future.done():
                continue
            error = await self._attempt([row])
            if error is not None:
                _fail(row, error)

    async def _attempt(self, batch: list[_Row]) -> BaseException | None:
        """Run a batch and answer its rows, or say why not."""
        size = self._padded_size(len(batch))
        started = time.monotonic()
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(self._threads, self._run_rows, batch, size)
        await asyncio.wait([running])
        ended = time.monotonic()
        self._metrics.batch(len(batch), size - len(batch), ended - started)
        error = running.exception()
        if error is None:
            for row, features in zip(batch, running.result(), strict=False):
                if not row.future.done():
                    row.began, row.ended, row.n_rows = started, ended, len(batch)
                    row.future.set_result(features.copy())
        return error

    def _run_rows(self, rows: Sequence[_Row], size: int) -> Float32Array:
        """Run a padded batch; in a thread of the model's."""
        key = threading.get_ident(), size
        padded = self._padded.get(key)
        if padded is None:
            padded = self._padded[key] = np.zeros((size, *self._shape), np.float32)
        for place, row in enumerate(rows):
            np.divide(row.pixels, _WHITE, out=padded[place], dtype=np.float32)
        padded[len(rows) :] = 0.0  # nobody's picture stays behind in the padding
        features = self._run(padded)
        if len(features) != size:
            raise InferenceError(f"the model gave {len(features)} rows for {size}")
        return features


def _expire(row: _Row) -> None:
    _fail(row, _late())


def _fail(row: _Row, error: BaseException) -> None:
    if not row.future.done():
        row.future.set_exception(error)


def _late() -> DeadlineError:
    return DeadlineError("the image did not get its turn in time", hint="ask again later")
