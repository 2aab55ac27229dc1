"""Looks after the Triton servers, so that readiness and numbers follow them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from concurrent.futures import ThreadPoolExecutor

from robustzs.backends.triton import TritonBackend
from robustzs.errors import BackendError, BackendMismatchError
from robustzs_serving.observe.metrics import Metrics

_logger = logging.getLogger(__name__)
_SECONDS = 2.0


class TritonWatch:
    """Asks every server how it does, again and again. Use from one event loop.

    A service whose servers are not there yet starts all the same, not ready, and becomes ready by
    itself: which of the two is started first is nobody's worry.

    Args:
        backend: whose servers.
        metrics: what is counted.
        seconds: between two looks.
    """

    def __init__(
        self, backend: TritonBackend, metrics: Metrics, *, seconds: float = _SECONDS
    ) -> None:
        self._backend = backend
        self._metrics = metrics
        self._seconds = seconds
        self._errors: dict[str, str | None] = {}
        # its own: the event loop's threads may all wait for the servers
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="robustzs-watch")
        self._task: asyncio.Task[None] | None = None
        self._ready = False

    @property
    def ready(self) -> bool:
        """Whether a server could answer when it was last asked."""
        return self._ready

    async def start(self) -> None:
        """Look once, then from time to time.

        Raises:
            BackendMismatchError: the servers answer, and none has this model.
        """
        errors = await self._look()
        told = [error for error in errors if isinstance(error, BackendMismatchError)]
        if told and len(told) == len(errors):
            raise told[0]
        self._task = asyncio.get_running_loop().create_task(self._work(), name="watch")

    async def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _work(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            try:
                await self._look()
            except Exception:  # whatever it is: not ready is said, and the next look comes
                self._ready = False
                _logger.exception("the Triton servers could not be looked at")

    async def _look(self) -> list[BackendError]:
        """The error of each server that has one; none where one of them works."""
        loop = asyncio.get_running_loop()
        reports = await loop.run_in_executor(self._thread, self._backend.report)
        for report in reports:
            self._metrics.triton(report)
            error = None if report.error is None else str(report.error)
            if self._errors.get(report.url, "") != error:
                self._errors[report.url] = error
                if error is None:
                    _logger.info("a Triton server is ready", extra={"triton": report.url})
                else:
                    _logger.warning("a Triton server is not ready: %s", error)
        self._ready = any(report.error is None for report in reports)
        return [] if self._ready else [one.error for one in reports if one.error is not None]
