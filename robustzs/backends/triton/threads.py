"""Threads for what is bound to the thread that made it: gevent's loops, of tritonclient's HTTP."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from queue import SimpleQueue
from typing import Any, TypeVar

from robustzs.backends.triton.failures import unreachable
from robustzs.errors import BackendUnavailableError

T = TypeVar("T")
_Job = tuple[Callable[[], Any], "Future[Any]"]


class Threads:
    """As many threads as calls run at once, used again and again.

    A loop of gevent has four file descriptors and often a thread, which stay when the thread ends
    that it was made in. In the callers' threads, which come and go, they would pile up.

    Args:
        leave: called in each thread before it ends.
        where: the server, for errors.
    """

    def __init__(self, leave: Callable[[], None], *, where: str) -> None:
        self._leave = leave
        self._where = where
        self._lock = threading.Lock()
        self._idle: list[SimpleQueue[_Job | None]] = []
        self._closed = False

    def run(self, job: Callable[[], T], seconds: float) -> T:
        """What ``job`` gives, or raises, in one of the threads.

        Raises:
            BackendTimeoutError: it takes longer than ``seconds``; it goes on.
            BackendUnavailableError: ``close`` was called.
        """
        done: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise BackendUnavailableError(
                    f"the connection to Triton at {self._where} is closed",
                    hint="load the classifier again",
                )
            jobs = self._idle.pop() if self._idle else None
        if jobs is None:
            jobs = SimpleQueue()
            threading.Thread(
                target=self._work, args=(jobs,), name="robustzs-http", daemon=True
            ).start()
        jobs.put((job, done))
        try:
            return done.result(seconds)
        except FutureTimeoutError as error:
            raise unreachable(TimeoutError(), where=self._where) from error

    def close(self) -> None:
        """End the threads that wait, and those that do not when they are done."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for jobs in idle:
            jobs.put(None)

    def _work(self, jobs: SimpleQueue[_Job | None]) -> None:
        try:
            while (one := jobs.get()) is not None and self._does(jobs, *one):
                pass
        finally:
            self._leave()

    def _does(
        self, jobs: SimpleQueue[_Job | None], job: Callable[[], Any], done: Future[Any]
    ) -> bool:
        """Whether more may come."""
        result, failed = None, None
        try:
            result = job()
        except BaseException as error:  # noqa: BLE001 (raised where it is waited for)
            failed = error
        with self._lock:  # first, so that who is told finds it idle
            more = not self._closed
            if more:
                self._idle.append(jobs)
        if failed is None:
            done.set_result(result)
        else:
            done.set_exception(failed)
        return more
