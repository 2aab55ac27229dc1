"""A loader set up as FARE's evaluation sets up its own: the class numbers in their order, as JSON.

A process of its own, because WebDataset leaves shards open.
"""

from __future__ import annotations

import json
import random
import sys
from functools import partial

import torch
import webdataset


def main(pattern: str) -> None:
    dataset = (
        webdataset.WebDataset(
            pattern, shardshuffle=False, nodesplitter=partial(iter), empty_check=False
        )
        .to_tuple("cls")
        .map_tuple(int)
        .shuffle(10_000, initial=10_000, rng=random.Random(0))
        .batched(50)
    )
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=4)
    sys.stdout.write(json.dumps([int(row) for (batch,) in loader for row in batch]))


if __name__ == "__main__":
    main(sys.argv[1])
