"""Subsets as papers drew them."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from robustzs_training.evaluation.sets.draws import Draw

from robustzs.errors import UsageError
from tests.training.data.shard_files import write_shard

LOADER = Path(__file__).with_name("robustvlm_loader.py")


@dataclass(frozen=True)
class Rows:
    """A source as a draw sees it."""

    n: int

    def __len__(self) -> int:
        return self.n


@dataclass(frozen=True)
class RowsInShards(Rows):
    chunks: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class RowsReordered(Rows):
    library_order: Any


def drawn(draw: Draw, source: Any, usable: Any = None) -> list[int]:
    rows = np.arange(len(source)) if usable is None else np.asarray(usable)
    found: list[int] = draw.rows(rows, source).tolist()
    return found


def test_torch_randperm_is_that_of_the_authors_loader() -> None:
    generator = torch.Generator()
    generator.manual_seed(42)
    expected = torch.randperm(5000, generator=generator).tolist()[:1000]
    draw = Draw(n=1000, seed=42, sampling="torch-randperm")
    assert drawn(draw, Rows(5000)) == sorted(expected)
    # A source that sorted the library's examples: the same pictures under other numbers.
    order = np.random.default_rng(0).permutation(5000)
    found = drawn(draw, RowsReordered(5000, order))
    assert sorted(order[found].tolist()) == sorted(expected)


@pytest.mark.parametrize("sampling", ["numpy", "torch-randperm", "robustvlm"])
def test_draws_are_ascending_distinct_and_of_what_can_be_used(sampling: Any) -> None:
    usable = np.arange(0, 700, 3)
    draw = Draw(n=50, seed=1, sampling=sampling)
    found = drawn(draw, Rows(700), usable)
    assert found == sorted(set(found)) == drawn(draw, Rows(700), usable)
    assert len(found) == 50
    assert set(found) <= set(usable.tolist())
    assert found != drawn(Draw(n=50, seed=2, sampling=sampling), Rows(700), usable)
    assert drawn(Draw(n=700, sampling=sampling), Rows(700), usable) == usable.tolist()
    assert drawn(Draw(sampling=sampling), Rows(700), usable) == usable.tolist()


def test_what_is_no_draw() -> None:
    for wrong in ({"n": 0}, {"n": True}, {"seed": -1}, {"sampling": "dice"}):
        with pytest.raises(UsageError):
            Draw(**wrong)


def test_robustvlm_deals_shards_out_to_four_and_takes_batches_in_turns() -> None:
    chunks = tuple((start, start + 100) for start in range(0, 600, 100))
    source = RowsInShards(600, chunks)
    # The first turn: 50 of shards 0 and 4, 50 of 1 and 5, 50 of 2, 50 of 3.
    found = drawn(Draw(n=200, sampling="robustvlm"), source)
    shares = [{0, 4}, {1, 5}, {2}, {3}]
    counts = [sum(row // 100 in share for row in found) for share in shares]
    assert counts == [50, 50, 50, 50]
    assert found != list(range(200))


@pytest.mark.slow
def test_robustvlm_is_what_a_loader_with_four_processes_gives(tmp_path: Path) -> None:
    sizes = (130, 70, 1, 160, 90, 40)
    ends = np.cumsum([0, *sizes]).tolist()
    for shard, size in enumerate(sizes):
        examples = [
            {"__key__": f"{row:06d}", "cls": str(row).encode()}
            for row in range(ends[shard], ends[shard] + size)
        ]
        write_shard(tmp_path / f"{shard}.tar", examples)
    pattern = f"{tmp_path}/{{0..{len(sizes) - 1}}}.tar"
    command = [sys.executable, "-W", "ignore", str(LOADER), pattern]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    rows = json.loads(result.stdout)
    assert sorted(rows) == list(range(sum(sizes)))
    source = RowsInShards(sum(sizes), tuple(itertools.pairwise(ends)))
    for n in (50, 120, 300, 460):
        assert drawn(Draw(n=n, seed=0, sampling="robustvlm"), source) == sorted(rows[:n])
