"""Where a CPU's tensors lie: memory that was freed is kept for the next step.

glibc asks the system for every large tensor anew, which clears its pages as they are first touched,
and gives them back at once. A step allocates the same sizes over and over: without this, that is a
quarter to a third of its time on EfficientNet-Lite0 (docs/benchmarks-training.md).
"""

from __future__ import annotations

import ctypes
import platform

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # of <malloc.h>


def keep_freed_memory() -> bool:
    """Let glibc's ``malloc`` keep what this process frees; whether it does.

    For the whole process and its children from now on: for commands that train or attack, not for
    libraries. Elsewhere than on glibc nothing changes.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**28))
    return all(mallopt(option, value) == 1 for option, value in settings)
