"""Small image folders, written as real files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from robustzs_training.recipe import AugmentPart

from robustzs.images.preprocess import PreprocessConfig

RULE = PreprocessConfig(image_size=(32, 32))
CENTER = AugmentPart()
RANDOM = AugmentPart(crop="random-resized", flip=True)


def picture(seed: int, size: tuple[int, int] = (40, 36)) -> Image.Image:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def write_picture(path: Path, seed: int = 0, size: tuple[int, int] = (40, 36)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed, size).save(path)
    return path


def write_classes(root: Path, counts: Mapping[str, int], suffix: str = ".png") -> Path:
    """``root/NAME/000.png`` and so on."""
    seed = 0
    for name, count in counts.items():
        for number in range(count):
            seed += 1
            write_picture(root / name / f"{number:03d}{suffix}", seed)
    return root


def write_bad(root: Path, kinds: Iterable[str] = ("empty", "text", "cut")) -> list[Path]:
    """Files that look like images by name only."""
    whole = write_picture(root / "whole.jpg", 99).read_bytes()
    (root / "whole.jpg").unlink()
    content = {"empty": b"", "text": b"not an image\n", "cut": whole[: len(whole) // 2]}
    paths = []
    for kind in kinds:
        path = root / f"zz-{kind}.jpg"
        path.write_bytes(content[kind])
        paths.append(path)
    return paths
