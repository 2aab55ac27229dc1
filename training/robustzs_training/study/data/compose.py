"""One picture: a cut-out on a ground, or a crop of a photograph; and what can be said of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from robustzs_training.study.data.grounds import (
    Ground,
    Photograph,
    draw_ground,
    path_of,
    random_crop,
)
from robustzs_training.study.data.looks import Place, contrast, measure_place

SIDE = 256
"""Side of a picture, in pixels: a training crop of 224 is cut from it."""
QUALITY = 92
"""Of JPEG."""
_TRIES = 8
_CONTRAST = 0.17
_SCALES = (0.42, 0.96)
_TURN = 14.0


@dataclass(frozen=True, kw_only=True)
class Composite:
    """A picture and its facts.

    Attributes:
        image: RGB, :data:`SIDE` by :data:`SIDE`.
        ground: What is behind the thing.
        place: Where the thing is.
        contrast: By how much the thing differs from what it covers, 0 to 1.
    """

    image: Image.Image
    ground: Ground
    place: Place
    contrast: float


def compose(
    cut_out: Image.Image,
    photographs: Sequence[Photograph],
    folder: Path,
    generator: np.random.Generator,
) -> Composite:
    """Put a cut-out on a ground that it can be told from.

    The ground is drawn again while thing and ground differ too little, at most eight times; the
    best is taken.

    Args:
        cut_out: RGBA.
        photographs: Grounds that may be used.
        folder: Where they are kept.
        generator: Random numbers.
    """
    thing = _transformed(cut_out, generator)
    left = int(generator.integers(0, SIDE - thing.width + 1))
    top = int(generator.integers(0, SIDE - thing.height + 1))
    mask = Image.new("L", (SIDE, SIDE))
    mask.paste(thing.getchannel("A"), (left, top))
    alpha = np.asarray(mask)
    best: Composite | None = None
    for _ in range(_TRIES):
        ground, behind = draw_ground(photographs, folder, SIDE, generator)
        image = behind.copy()
        image.paste(thing, (left, top), thing)
        found = contrast(np.asarray(image), np.asarray(behind), alpha)
        if best is None or found > best.contrast:
            place = measure_place(alpha)
            best = Composite(image=image, ground=ground, place=place, contrast=found)
        if found >= _CONTRAST:
            break
    if best is None:  # never: there is at least one try
        raise RuntimeError("no ground was tried")
    return best


def _transformed(cut_out: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Turned a little, and scaled so that it fits."""
    angle = float(generator.uniform(-_TURN, _TURN))
    turned = cut_out.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    turned = turned.crop(turned.getchannel("A").getbbox())
    scale = float(generator.uniform(*_SCALES)) * SIDE / max(turned.size)
    width, height = (max(1, min(SIDE, round(side * scale))) for side in turned.size)
    return turned.resize((width, height), Image.Resampling.BICUBIC)


def crop_photograph(
    photograph: Photograph, folder: Path, number: int, generator: np.random.Generator
) -> Image.Image:
    """A crop of a photograph of something: the first one shows its whole middle."""
    with Image.open(path_of(photograph, folder)) as opened:
        picture = opened.convert("RGB")
    if number == 0:
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        box = (left, top, left + side, top + side)
        return picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box)
    return random_crop(picture, (0.75, 1.0), SIDE, generator)
