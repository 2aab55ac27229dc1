"""Grounds to put a drawing on: generated textures, and crops of scikit-learn's two photographs.

The textures are mathematics and a seed. The photographs (``china.jpg``, ``flower.jpg``) come with
the package scikit-learn.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image

Texture = npt.NDArray[np.float32]
PHOTOGRAPHS = ("china.jpg", "flower.jpg")
_PHOTOGRAPH_SHARE = 0.25


def _colors(generator: np.random.Generator, count: int) -> Texture:
    return generator.uniform(0.0, 1.0, (count, 3)).astype(np.float32)


def _mix(weight: Texture, generator: np.random.Generator) -> Texture:
    """Two random colours, mixed by ``weight`` ``[S, S]`` in [0, 1]."""
    first, second = _colors(generator, 2)
    return first + weight[..., None] * (second - first)


def _axis(size: int, generator: np.random.Generator) -> Texture:
    """A coordinate in a random direction, 0 to about 1: ``[S, S]``."""
    angle = generator.uniform(0.0, 2.0 * np.pi)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5
    return np.asarray(np.cos(angle) * x + np.sin(angle) * y, np.float32) / np.float32(1.42) + 0.5


def _smooth(size: int, cells: int, generator: np.random.Generator, channels: int = 1) -> Texture:
    """Noise of ``cells`` cells a side, bicubically enlarged: ``[S, S, channels]`` in [0, 1]."""
    planes = []
    for _ in range(channels):
        coarse = generator.integers(0, 256, (cells, cells), dtype=np.uint8)
        fine = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
        planes.append(np.asarray(fine, np.float32) / 255.0)
    return np.stack(planes, axis=-1)


def _gradient(size: int, generator: np.random.Generator) -> Texture:
    return _mix(_axis(size, generator), generator)


def _stripes(size: int, generator: np.random.Generator) -> Texture:
    wave = np.sin(_axis(size, generator) * np.float32(generator.uniform(12.0, 90.0)))
    sharpness = generator.uniform(1.0, 20.0)
    return _mix(np.clip(0.5 + sharpness * wave, 0.0, 1.0).astype(np.float32), generator)


def _checker(size: int, generator: np.random.Generator) -> Texture:
    frequency = np.float32(generator.uniform(12.0, 60.0))
    first = np.sin(_axis(size, generator) * frequency) > 0
    second = np.sin(_axis(size, generator) * frequency) > 0
    return _mix((first ^ second).astype(np.float32), generator)


def _blobs(size: int, generator: np.random.Generator) -> Texture:
    field = _smooth(size, int(generator.integers(4, 14)), generator)[..., 0]
    return _mix((field > np.median(field)).astype(np.float32), generator)


def _clouds(size: int, generator: np.random.Generator) -> Texture:
    """Noise of several octaves, each half as strong as the one before."""
    total = np.zeros((size, size, 3), np.float32)
    for octave in range(5):
        total += _smooth(size, 3 * 2**octave, generator, channels=3) / np.float32(2**octave)
    low, high = total.min(), total.max()
    return (total - low) / max(float(high - low), 1e-6)


def _grain(size: int, generator: np.random.Generator) -> Texture:
    noise = generator.standard_normal((size, size, 3), dtype=np.float32)
    strength = np.float32(generator.uniform(0.05, 0.25))
    return np.clip(_gradient(size, generator) + strength * noise, 0.0, 1.0)


_TEXTURES: tuple[tuple[str, Callable[[int, np.random.Generator], Texture]], ...] = (
    ("a smooth gradient", _gradient),
    ("stripes", _stripes),
    ("a chequered pattern", _checker),
    ("blobs of two colors", _blobs),
    ("colorful clouds", _clouds),
    ("a grainy surface", _grain),
)


@cache
def _photographs() -> tuple[Image.Image, ...]:
    from sklearn.datasets import load_sample_image

    return tuple(Image.fromarray(np.asarray(load_sample_image(name))) for name in PHOTOGRAPHS)


def _choose(
    generator: np.random.Generator,
) -> tuple[str, Callable[[int, np.random.Generator], Texture] | None]:
    """What the ground shows, and how it is drawn: a quarter are crops of photographs."""
    if generator.random() < _PHOTOGRAPH_SHARE:
        return "a photograph", None
    return _TEXTURES[int(generator.integers(len(_TEXTURES)))]


def draw_ground(size: int, generator: np.random.Generator) -> Image.Image:
    """Draw a ground of ``size`` by ``size`` pixels, RGB."""
    _, texture = _choose(generator)
    if texture is None:
        return _crop(size, generator)
    picture = np.rint(255.0 * np.clip(texture(size, generator), 0.0, 1.0)).astype(np.uint8)
    return Image.fromarray(picture)


def draw_texture(size: int, generator: np.random.Generator) -> tuple[str, Image.Image]:
    """Draw one of the generated textures: what it is in words, and ``size`` by ``size`` pixels."""
    name, texture = _TEXTURES[int(generator.integers(len(_TEXTURES)))]
    picture = np.rint(255.0 * np.clip(texture(size, generator), 0.0, 1.0)).astype(np.uint8)
    return name, Image.fromarray(picture)


def ground_name(generator: np.random.Generator) -> str:
    """What :func:`draw_ground` will draw with a generator in this state, in words."""
    return _choose(generator)[0]


def _crop(size: int, generator: np.random.Generator) -> Image.Image:
    photographs = _photographs()
    photograph = photographs[int(generator.integers(len(photographs)))]
    side = int(min(photograph.size) * generator.uniform(0.3, 1.0))
    left = int(generator.integers(0, photograph.width - side + 1))
    top = int(generator.integers(0, photograph.height - side + 1))
    box = (left, top, left + side, top + side)
    return photograph.resize((size, size), Image.Resampling.BICUBIC, box=box)
