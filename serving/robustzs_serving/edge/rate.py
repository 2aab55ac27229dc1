"""How often one key or one address may ask."""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache


class RateLimiter:
    """A token bucket for each name (the generic cell rate algorithm: one number per name).

    The libraries that were looked at (``limits`` 5.8, ``pyrate-limiter``) keep memory for every
    name that was ever seen, or a timer thread; here at most ``max_entries`` names are remembered,
    and who is forgotten starts with a full bucket, so that nobody can be locked out by others.

    Each worker process counts alone. Use from one event loop.

    Args:
        per_second: tokens that come back per second; 0 for no limit.
        burst: tokens of a full bucket.
        max_entries: names that are remembered.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        per_second: float,
        burst: int,
        max_entries: int,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._interval = 1.0 / per_second if per_second > 0 else 0.0
        self._tolerance = self._interval * max(burst - 1, 0)
        self._max_entries = max_entries
        self._clock = clock
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, name: str) -> float:
        """Take one token.

        Args:
            name: whose bucket.

        Returns:
            0 where there was one, else the seconds until there is.
        """
        if self._interval == 0.0:
            return 0.0
        now = self._clock()
        full_at = max(self._full_at.get(name, now), now)
        wait = full_at - now - self._tolerance
        if wait > 0:
            return wait
        self._full_at[name] = full_at + self._interval
        self._full_at.move_to_end(name)
        self._forget(now)
        return 0.0

    def _forget(self, now: float) -> None:
        """Drop names whose bucket is full again, and the oldest where there are too many."""
        while self._full_at:
            oldest = next(iter(self._full_at))
            if self._full_at[oldest] > now and len(self._full_at) <= self._max_entries:
                return
            del self._full_at[oldest]


@lru_cache(maxsize=1024)
def address_name(address: str) -> str:
    """An address as who it stands for: an IPv6 client has a whole /64 of them."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return f"address:{address}"
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return f"address:{parsed.ipv4_mapped}"
        return f"address:{ipaddress.ip_network((int(parsed), 64), strict=False)}"
    return f"address:{parsed}"


def retry_after(wait: float) -> str:
    """Seconds for the header ``Retry-After``, a whole number from 1 up."""
    return str(max(1, math.ceil(wait)))
