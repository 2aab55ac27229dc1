"""Freed memory that stays: seen from outside, in a process of its own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_TOUCHES = """
import resource, sys
from robustzs_training.allocator import keep_freed_memory
import torch
kept = keep_freed_memory() if sys.argv[1] == "keep" else False
for _ in range(15):  # until holes of this size are there
    torch.ones(16 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(16 << 20)
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(how: str) -> tuple[int, int]:
    environment = {"PATH": "", "OMP_NUM_THREADS": "1"}  # without settings of malloc from outside
    done = subprocess.run(
        [sys.executable, "-c", _TOUCHES, how],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    kept, faults = done.stdout.split()
    return int(kept), int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_pages_are_not_asked_for_again() -> None:
    kept, faults = _faults("keep")
    assert kept == 1
    assert faults < 100
    assert _faults("plain") > (0, 1000)
