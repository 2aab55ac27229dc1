"""Waiting for work: side by side, up to a deadline, within a span."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, TypeVar

from robustzs_serving.errors import DeadlineError
from robustzs_serving.observe import span

T = TypeVar("T")
U = TypeVar("U")


async def traced(name: str, work: Callable[..., Awaitable[T]], *given: Any, **named: Any) -> T:
    """The result of ``work(...)``, in a span of this name."""
    with span(name):
        return await work(*given, **named)


async def both(first: Awaitable[T], second: Awaitable[U]) -> tuple[T, U]:
    """Both results; where one fails the other is cancelled."""
    tasks = asyncio.ensure_future(first), asyncio.ensure_future(second)
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def until(deadline: float, work: asyncio.Future[T]) -> T:
    """What a thread gives, or a ``DeadlineError``; the thread goes on in any case."""
    try:
        return await asyncio.wait_for(asyncio.shield(work), max(0.0, deadline - monotonic()))
    except asyncio.TimeoutError as error:
        raise DeadlineError("there was no time to answer", hint="ask again later") from error
