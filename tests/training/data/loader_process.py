"""A loader process reads what this process reads."""

from __future__ import annotations

import multiprocessing
import pickle

import numpy as np
from robustzs_training.data.base import SampleSource
from torch.utils.data import DataLoader, Dataset


class Pixels(Dataset):  # type: ignore[type-arg]
    def __init__(self, source: SampleSource) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[str, int | None, int]:
        sample = self.source.read(index)
        return sample.key, sample.label, int(np.asarray(sample.image).sum())


def check_loader_process(source: SampleSource) -> None:
    """A loader process reads what this process reads."""
    pixels = Pixels(pickle.loads(pickle.dumps(source)))
    loader = DataLoader(
        pixels,
        batch_size=None,
        num_workers=1,
        multiprocessing_context=multiprocessing.get_context("fork"),
    )
    here = [Pixels(source)[i] for i in range(len(source))]
    assert [tuple(each) for each in loader] == here
