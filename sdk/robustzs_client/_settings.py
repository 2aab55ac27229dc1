"""How long to wait, how often to try, and how much to send at once: three value objects."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """Seconds that a call may take; ``None`` for no bound.

    Args:
        connect: For one connection to stand.
        read: Without a byte of the answer.
        write: Without a byte of the request going out.
        total: For one call with all its tries and waits. Asynchronous calls end then; synchronous
            ones look at it between one piece of the answer and the next.

    Raises:
        ValueError: One of them is not above 0.
    """

    connect: float | None = 5.0
    read: float | None = 60.0
    write: float | None = 30.0
    total: float | None = 120.0

    def __post_init__(self) -> None:
        for name in ("connect", "read", "write", "total"):
            _positive(name, getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class Retries:
    """When a call is tried again: after 429, 503 and broken connections, and after nothing else.

    The n-th wait is a random part of ``min(initial * 2**(n-1), longest)`` seconds. Where the
    service says ``Retry-After``, it is that, and a random part of ``initial`` on top. A wait that
    would pass ``Timeouts.total`` is not begun.

    Args:
        attempts: In all, the first one included; 1 for none more.
        initial: Seconds.
        longest: Seconds.

    Raises:
        ValueError: A number makes no sense.
    """

    attempts: int = 6
    initial: float = 0.25
    longest: float = 8.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts must be at least 1, got {self.attempts}")
        _positive("initial", self.initial)
        _positive("longest", self.longest)


@dataclass(frozen=True, kw_only=True)
class Batching:
    """How many images go out together.

    Args:
        max_images: In one request, at most.
        max_bytes: Of encoded images in one request, at most; a larger image goes alone.
        concurrency: Requests under way at once.

    Raises:
        ValueError: One of them is not above 0.
    """

    max_images: int = 16
    max_bytes: int = 8_000_000
    concurrency: int = 4

    def __post_init__(self) -> None:
        for name in ("max_images", "max_bytes", "concurrency"):
            _positive(name, getattr(self, name))


def _positive(name: str, value: float | None) -> None:
    if value is not None and not value > 0:
        raise ValueError(f"{name} must be above 0, got {value}")
