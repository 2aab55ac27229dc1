"""A set of random pictures, a small net, and a tiny bundle with pictures in folders."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from robustzs_training.evaluation.run import Measurement, Place
from robustzs_training.evaluation.state import EvaluationState
from robustzs_training.evaluation.trials import Target, Trial, ladder
from robustzs_training.export.bundle import BundleFacts, export_open_clip_model
from robustzs_training.export.tokenizers import tokenizer_of

from robustzs.bundle.manifest import LicenceRecord, SourceRecord
from robustzs.images.config import PreprocessConfig
from robustzs.labels import LabelSet
from robustzs.threat import ThreatModel
from tests.training.evaluation.small_victims import made, net_victim, pictures, predicted
from tests.training.tiny_clip import TINY, make_clip

NAMES = ("cat", "dog", "goldfish", "teapot", "tree", "car")
THREATS = (ThreatModel(eps=2.0 / 255.0), ThreatModel(eps=4.0 / 255.0))


@dataclass
class Pictures:
    """An evaluation set in memory, which counts how often it was read."""

    shown: torch.Tensor
    right: npt.NDArray[np.bool_]
    name: str = "random"
    labels: LabelSet = field(default_factory=lambda: LabelSet.from_names(NAMES))
    digest: str = "0" * 64
    reads: list[list[int]] = field(default_factory=list)

    @property
    def keys(self) -> Sequence[str]:
        return [str(row) for row in range(len(self.shown))]

    @property
    def truth(self) -> Sequence[str]:
        return [NAMES[int(row.argmax())] for row in self.right]

    @property
    def description(self) -> Mapping[str, Any]:
        return {"n_available": len(self.shown), "seed": 0}

    def pixels(self, rows: npt.NDArray[np.int64]) -> torch.Tensor:
        self.reads.append(rows.tolist())
        return self.shown[torch.from_numpy(rows)]


def some_pictures(n: int = 30, *, wrong_each: int = 5) -> tuple[Pictures, Target]:
    """Pictures of a small net, every fifth of them wrong before any attack."""
    victim = net_victim()
    shown = pictures(n)
    right = predicted(victim, shown)
    right[::wrong_each] = right[::wrong_each].roll(1, dims=1)
    images = Pictures(shown, right.numpy())
    return images, Target(victim=victim, right=images.right)


def trials_of(
    target: Target, names: Sequence[str] = ("apgd-ce",), threats: Sequence[ThreatModel] = THREATS
) -> list[Trial]:
    return ladder(names, threats, target, lambda name, threat: made(name, threat, n_steps=5))


@contextlib.contextmanager
def unseen(title: str) -> Iterator[Any]:
    del title
    yield lambda done, total: None


@contextlib.contextmanager
def measuring(folder: Path, images: Pictures, target: Target, **more: Any) -> Iterator[Measurement]:
    place = more.pop("place", Place())
    with EvaluationState(folder, {"what": images.name}, rank=place.rank) as state:
        yield Measurement(
            images=images,
            targets=[target],
            state=state,
            place=place,
            batch_size=more.pop("batch_size", 4),
            progress=unseen,
            **more,
        )


def tiny_bundle(folder: Path, **facts: Any) -> Path:
    """A bundle with weights of a CLIP that knows nothing."""
    values: dict[str, Any] = {
        "name": "tiny",
        "source": SourceRecord(description="random numbers"),
        "preprocess": PreprocessConfig(image_size=(32, 32)),
        "mean": (0.48, 0.46, 0.41),
        "std": (0.27, 0.26, 0.28),
        "licences": (LicenceRecord(name="CC0-1.0", covers="everything"),),
    }
    weights = facts.pop("weights", "all")
    export_open_clip_model(
        make_clip(TINY),
        config=TINY,
        tokenizer=tokenizer_of(TINY),
        output=folder,
        facts=BundleFacts(**{**values, **facts}),
        weights=weights,
    )
    return folder


def answered_pictures(folder: Path, bundle: Path, n: int = 24) -> Path:
    """A table of pictures that the bundle is mostly right about, and often just so."""
    from robustzs.classifier import Classifier

    folder.mkdir()
    rng = np.random.default_rng(0)
    paths = []
    for number in range(n):
        coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        path = folder / f"{number:02d}.png"
        Image.fromarray(coarse).resize((32, 32), Image.Resampling.BICUBIC).save(path)
        paths.append(path)
    rows = ["path,label"]
    with Classifier.load(str(bundle), labels=list(NAMES), hierarchy="flat") as classifier:
        for number, path in enumerate(paths):
            name = classifier.classify(path).flat_top1.name
            if number % 6 == 5:
                name = NAMES[(NAMES.index(name) + 1) % len(NAMES)]
            rows.append(f"{path.name},{name}")
    table = folder / "data.csv"
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return table
