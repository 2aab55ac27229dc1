"""Decode processes behind one asyncio call."""

from __future__ import annotations

import asyncio
import logging
import queue
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from robustzs.errors import ImageError, UsageError
from robustzs.images.config import PreprocessConfig
from robustzs.images.limits import DEFAULT_LIMITS, ImageLimits
from robustzs_serving.decode.slot import DecodeSlot, UInt8Array
from robustzs_serving.errors import (
    DeadlineError,
    DecodeCrashedError,
    DecodeTimeoutError,
    QueueFullError,
    ShuttingDownError,
)
from robustzs_serving.observe.metrics import Metrics

_logger = logging.getLogger(__name__)
_WATCH_SECONDS = 1.0


@dataclass
class _Job:
    """One image's bytes, until nobody waits for its pixels."""

    data: bytes


class DecodePool:
    """Decodes images in processes of their own, one image per process at a time.

    A process that takes longer than ``seconds`` over an image, or dies, is killed and replaced;
    no other image notices. Each process has one thread here, which moves the bytes: the event loop
    never does. Use from one event loop.

    Args:
        n: processes, >= 1.
        preprocess: rule of the model.
        limits: on every image.
        seconds: that one image may take, > 0.
        max_waiting: images that may wait for a process, >= 1.
        memory_bytes: address space that a process may have; by default what the largest image of
            ``limits`` needs.
        metrics: what is counted.
    """

    def __init__(
        self,
        n: int,
        preprocess: PreprocessConfig,
        limits: ImageLimits = DEFAULT_LIMITS,
        seconds: float = 10.0,
        *,
        max_waiting: int = 256,
        memory_bytes: int | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        if n < 1 or max_waiting < 1 or not seconds > 0.0:
            raise UsageError(
                f"{n} decode processes with {max_waiting} images waiting and {seconds} s each: "
                "all must be above 0"
            )
        self._metrics = metrics or Metrics()
        self._slots = [
            DecodeSlot(preprocess, limits, seconds, memory_bytes, self._metrics) for _ in range(n)
        ]
        self._free: queue.SimpleQueue[DecodeSlot] = queue.SimpleQueue()
        for slot in self._slots:
            self._free.put(slot)
        self._threads = ThreadPoolExecutor(n, thread_name_prefix="robustzs-decode")
        self._max_inside = n + max_waiting
        self._n_inside = 0
        self._closing = False
        self._watching: asyncio.Task[None] | None = None

    @property
    def pids(self) -> list[int]:
        """Of the processes that take work."""
        return [pid for pid in (slot.pid for slot in self._slots) if pid is not None]

    @property
    def n_alive(self) -> int:
        """Processes that take work, or are about to."""
        return sum(slot.is_alive for slot in self._slots)

    @property
    def free(self) -> int:
        """Images that may still be given."""
        return max(0, self._max_inside - self._n_inside)

    async def start(self) -> None:
        """Start every process and wait until all are warm.

        Raises:
            NotReadyError: one does not come up.
        """
        loop = asyncio.get_running_loop()
        started = [loop.run_in_executor(self._threads, slot.start) for slot in self._slots]
        await asyncio.gather(*started)
        self._metrics.decoders(len(self.pids))
        self._watching = loop.create_task(self._watch(), name="decoders")

    async def decode(self, data: bytes, *, deadline: float) -> UInt8Array:
        """Pixels ``[3, H, W]`` as bytes; divided by 255 in float32 they are the model's.

        They are then bit for bit those of ``Embedder.preprocess``. As bytes a full queue of them
        needs a quarter of the memory.

        Args:
            data: an image file's content.
            deadline: on ``time.monotonic``'s clock.

        Raises:
            ImageError: what is wrong with the image; ``DecodeTimeoutError`` and
                ``DecodeCrashedError`` among it.
            QueueFullError: too many images wait.
            DeadlineError: the deadline passed first.
            NotReadyError: no process comes up.
            ShuttingDownError: ``close`` was called.
        """
        if self._closing:
            raise ShuttingDownError("the service is shutting down", hint="ask again")
        if self._n_inside >= self._max_inside:
            raise QueueFullError(
                f"{self._n_inside} images wait to be decoded already", hint="ask again later"
            )
        left = deadline - time.monotonic()
        if left <= 0.0:
            raise _late()
        job = _Job(data)
        work = asyncio.get_running_loop().run_in_executor(self._threads, self._decode, job)
        self._n_inside += 1
        work.add_done_callback(self._finished)
        try:
            # At the deadline, or when the waiter is cancelled, an image that has not begun never
            # does; one that has begun ends within its own time, and nobody hears of it.
            return await asyncio.wait_for(work, left)
        except asyncio.TimeoutError as error:
            raise _late() from error
        finally:
            job.data = b""  # a job that is cancelled stays in the threads' queue for a while

    async def close(self) -> None:
        """Take nothing new, finish what was accepted, end the processes."""
        self._closing = True
        if self._watching is not None:
            self._watching.cancel()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._threads.shutdown)
        await asyncio.gather(*(loop.run_in_executor(None, slot.end) for slot in self._slots))
        self._metrics.decoders(0)

    def _decode(self, job: _Job) -> UInt8Array:
        """In a thread: there are as many as slots, so one is always free."""
        slot = self._free.get()
        started = time.monotonic()
        try:
            pixels = slot.decode(job.data)
            self._metrics.decoded(time.monotonic() - started, "ok")
            return pixels
        except DecodeTimeoutError:
            self._metrics.decoded(time.monotonic() - started, "timeout")
            raise
        except DecodeCrashedError:
            self._metrics.decoded(time.monotonic() - started, "crashed")
            raise
        except ImageError:
            self._metrics.decoded(time.monotonic() - started, "refused")
            raise
        finally:
            self._free.put(slot)

    async def _watch(self) -> None:
        """Replace processes that died while they were idle, so that readiness comes back."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            if len(self.pids) < len(self._slots):
                revived = [loop.run_in_executor(self._threads, self._revive) for _ in self._slots]
                await asyncio.wait(revived)
                for work in revived:
                    self._report(work.exception())
            self._metrics.decoders(len(self.pids))

    def _revive(self) -> None:
        slot = self._free.get()
        try:
            slot.start()
        finally:
            self._free.put(slot)

    @staticmethod
    def _report(error: BaseException | None) -> None:
        if error is not None:
            _logger.error("a decode process cannot be replaced: %s", error)

    def _finished(self, work: asyncio.Future[UInt8Array]) -> None:
        self._n_inside -= 1
        if not work.cancelled():
            work.exception()  # seen, even where the waiter is gone


def _late() -> DeadlineError:
    return DeadlineError("the image was not decoded in time", hint="ask again later")
