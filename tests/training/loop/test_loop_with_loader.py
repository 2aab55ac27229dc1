"""The loop with the loader that it is made for: real files, loader processes, broken images."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from robustzs_training.data.base import Examples
from robustzs_training.data.folders import open_folder
from robustzs_training.data.loader import ExampleLoader
from robustzs_training.data.trouble import Trouble
from robustzs_training.loop import Trainer
from robustzs_training.objectives import Batch, Fare

from robustzs.images.preprocess import PreprocessConfig
from tests.training.data.picture_folders import RANDOM, write_bad, write_classes
from tests.training.loop.small_runs import make_recipe, metrics, weights
from tests.training.tiny_models import make_adapter

RECIPE = make_recipe(schedule={"steps": 12}, run={"checkpoint_every": 5})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 pictures, two of them broken: five steps an epoch."""
    root = write_classes(tmp_path_factory.mktemp("pictures"), {"cat": 10, "dog": 8})
    write_bad(root / "cat", ["empty", "cut"])
    return root


class StoppedLoader(ExampleLoader):
    """Asks the run to stop in its seventh step."""

    def epoch(self, epoch: int, *, skip: int = 0) -> Iterator[Examples]:
        for place, examples in enumerate(super().epoch(epoch, skip=skip), start=skip):
            if (epoch, place) == (1, 1):
                signal.raise_signal(signal.SIGINT)
            yield examples


def train(
    folder: Path, output: Path, *, n_workers: int = 0, kind: type[ExampleLoader] = ExampleLoader
) -> tuple[Fare, Trouble, bool]:
    objective, trouble = Fare(make_adapter()), Trouble(1.0)
    with kind(
        open_folder(folder),
        batch_size=4,
        augment=RANDOM,
        image_size=(16, 16),
        resize=PreprocessConfig(image_size=(16, 16)),
        seed=0,
        n_workers=n_workers,
        trouble=trouble,
    ) as loader:
        result = Trainer(
            objective,
            loader,
            RECIPE,
            output,
            to_batch=lambda examples, device: Batch(pixels=examples.pixels),
            provenance={},
            progress=False,
        ).run()
    return objective, trouble, result.interrupted


@pytest.mark.parametrize("n_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_stopped_and_resumed_sees_the_same_pictures(
    folder: Path, tmp_path: Path, n_workers: int
) -> None:
    wanted, all_trouble, _ = train(folder, tmp_path / "whole")
    _, _, interrupted = train(folder, tmp_path / "broken", n_workers=n_workers, kind=StoppedLoader)
    assert interrupted
    assert metrics(tmp_path / "broken")[-1]["step"] == 7
    found, trouble, interrupted = train(folder, tmp_path / "broken")
    assert not interrupted
    for name, parameter in weights(wanted).items():
        torch.testing.assert_close(weights(found)[name], parameter, rtol=0, atol=0)
    assert trouble.summary() == all_trouble.summary()
    assert sum(each["count"] for each in trouble.state_dict()["kinds"].values()) == 2
