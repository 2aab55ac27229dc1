"""Memory that the allocator keeps though nothing uses it.

An attack's batch shrinks as its images break, so that every step frees and takes blocks of other
sizes: glibc keeps what it can no longer fill. With ``robustzs-lite`` that was 1.1 GB after two
batches of 12.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache


def give_back() -> None:
    """Give free memory back to the system; nothing happens where the C library has no such call."""
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    try:
        found = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # not glibc; TypeError: Windows
        return None
    found.argtypes, found.restype = (ctypes.c_size_t,), ctypes.c_int
    return found
