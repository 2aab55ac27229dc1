"""What batches leave behind goes back to the system."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest
from robustzs_training.evaluation import run
from robustzs_training.evaluation.memory import give_back

from tests.training.evaluation.measured_worlds import measuring, some_pictures, trials_of

_BLOCK, _N_BLOCKS = 64_000, 4_000  # 256 MB in blocks that are not mapped one by one


def _resident() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * 4096


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc's malloc_trim")
def test_freed_memory_between_blocks_in_use_goes_back() -> None:
    blocks = [np.ones(_BLOCK, np.uint8) for _ in range(_N_BLOCKS)]
    kept = blocks[::100]
    del blocks
    before = _resident()
    give_back()
    assert before - _resident() > 0.5 * _BLOCK * _N_BLOCKS
    assert all(block.all() for block in kept)
    give_back()  # nothing left is no error


def test_after_every_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(run, "give_back", lambda: calls.append(1))
    images, target = some_pictures(12)
    with measuring(tmp_path, images, target, batch_size=4) as measurement:
        measurement.clean()
        assert len(calls) == 3
        measurement.attack(trials_of(target)[0])
        assert len(calls) > 3
