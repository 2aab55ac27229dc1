"""A model, classes and examples that are small enough for every recipe."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from robustzs_training.data.base import Examples, Sample

from robustzs.labels import LabelSet

# CLIP's own vocabulary, or its tokens would not fit.
TINY = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 16,
        "heads": 2,
        "layers": 1,
    },
}
NAMES = ("tabby cat", "golden retriever", "goldfish", "teapot")
CAPTIONS = ("a striped cat asleep on a sofa", "", "an orange fish in a bowl", "a blue teapot " * 40)


def write_tiny(folder: Path) -> str:
    """An open_clip configuration; its path, for ``model.source``."""
    path = folder / "tiny.json"
    path.write_text(json.dumps(TINY), encoding="utf-8")
    return str(path)


def tiny_overrides(folder: Path) -> list[str]:
    """Changes that make any recipe one of the tiny model with random weights."""
    return [
        f"model.source={write_tiny(folder)}",
        "model.pretrained=random",
        "run.batch_size=4",
        "run.precision=fp32",
    ]


def labels() -> LabelSet:
    return LabelSet.from_names(NAMES)


def examples(n: int = 4, *, size: int = 32) -> Examples:
    pixels = torch.randint(
        0, 256, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)
    )
    places = torch.arange(n)
    return Examples(
        indices=places,
        keys=tuple(f"{i}.png" for i in range(n)),
        pixels=pixels,
        labels=places % len(NAMES),
        captions=tuple(CAPTIONS[i % len(CAPTIONS)] for i in range(n)),
    )


@dataclass(frozen=True)
class CaptionsOnly:
    """A source that has captions, and no pictures."""

    captions: tuple[str | None, ...]
    labels: LabelSet | None = None
    label_of: torch.Tensor | None = None
    digest: str = "0" * 64

    def __len__(self) -> int:
        return len(self.captions)

    def caption_of(self, index: int) -> str | None:
        return self.captions[index]

    def read(self, index: int) -> Sample:
        raise NotImplementedError(f"no picture {index}")


def write_pictures(folder: Path, *, per_class: int = 3, size: int = 40) -> Path:
    """A folder of each class with random pictures."""
    from PIL import Image

    rng = np.random.default_rng(5)
    for name in NAMES:
        place = folder / name
        place.mkdir(parents=True)
        for i in range(per_class):
            pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / f"{i}.png")
    return folder
