"""Loaders as tests make them, and whether their batches are the same."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from robustzs_training.data.base import Examples, SampleSource
from robustzs_training.data.loader import ExampleLoader
from robustzs_training.data.trouble import Trouble
from robustzs_training.recipe import AugmentPart

from robustzs.hierarchy.tree import Hierarchy
from tests.training.data.picture_folders import RANDOM, RULE


def make(
    source: SampleSource,
    *,
    batch_size: int = 8,
    augment: AugmentPart = RANDOM,
    limit: float = 1.0,
    n_workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    seed: int = 5,
    siblings: int = 1,
    hierarchy: Hierarchy | None = None,
) -> ExampleLoader:
    return ExampleLoader(
        source,
        batch_size=batch_size,
        augment=augment,
        image_size=(32, 32),
        resize=RULE,
        seed=seed,
        n_workers=n_workers,
        rank=rank,
        world_size=world_size,
        siblings=siblings,
        hierarchy=hierarchy,
        trouble=Trouble(limit),
    )


def assert_same(ours: Sequence[Examples], theirs: Sequence[Examples]) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a.indices, b.indices)
        assert torch.equal(a.pixels, b.pixels)
        assert (a.keys, a.captions) == (b.keys, b.captions)
        assert a.labels is not None
        assert b.labels is not None
        assert torch.equal(a.labels, b.labels)
