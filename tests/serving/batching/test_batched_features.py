"""What comes out of a batch is what the embedded model gives, whatever shares the batch."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from robustzs_serving.batching import Batcher

from robustzs.classifier import Embedder

PHOTOS = Path(__file__).parents[3] / "examples" / "photos"
Pixels = npt.NDArray[np.uint8]
Features = npt.NDArray[np.float32]


def soon(seconds: float = 60.0) -> float:
    return time.monotonic() + seconds


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder.load(threads=1)


@pytest.fixture(scope="module")
def crops(embedder: Embedder) -> list[Pixels]:
    """Sixteen pictures: crops of three photographs, as the decoder gives them."""
    from PIL import Image

    pictures = []
    for i in range(16):
        name = ("coffee.jpg", "rocket.jpg", "chelsea.png")[i % 3]
        with Image.open(PHOTOS / name) as image:
            part = image.convert("RGB").crop((5 * i, 3 * i, 5 * i + 230, 3 * i + 230))
        pictures.append(np.rint(embedder.preprocess(part) * 255).astype(np.uint8))
    return pictures


def through(embedder: Embedder, rows: list[Pixels], **options: object) -> list[Features]:
    async def run() -> list[Features]:
        batcher = Batcher(
            embedder.backend.encode_image,
            shape=(3, 224, 224),
            wait_seconds=0.2,
            **options,  # type: ignore[arg-type]
        )
        try:
            return await asyncio.gather(*(batcher.submit(r, deadline=soon()) for r in rows))
        finally:
            await batcher.close()

    return asyncio.run(run())


def test_within_a_padded_shape_neighbours_change_no_bit(
    embedder: Embedder, crops: list[Pixels]
) -> None:
    one = {"max_rows": 8, "buckets": (8,)}
    alone = [through(embedder, [crop], **one)[0] for crop in crops[:4]]
    for company in ([0, 1], [3, 2, 1, 0], [9, 0, 10, 1, 11, 2, 12, 3], [0, 0, 0]):
        together = through(embedder, [crops[i] for i in company], **one)
        for place, i in enumerate(company):
            if i < 4:
                assert np.array_equal(together[place], alone[i])


def test_across_shapes_features_agree_within_a_millionth(
    embedder: Embedder, crops: list[Pixels]
) -> None:
    wide = through(embedder, crops)
    for size in (1, 2, 4, 8):
        narrow = through(embedder, crops[:size])
        for left, right in zip(narrow, wide, strict=False):
            assert np.abs(left - right).max() <= 1e-6 * max(1.0, float(np.abs(right).max()))


def test_features_are_those_of_the_embedder(embedder: Embedder) -> None:
    data = (PHOTOS / "chelsea.png").read_bytes()
    pixels = embedder.preprocess(data)
    (features,) = through(embedder, [np.rint(pixels * 255).astype(np.uint8)])
    assert np.array_equal(features, embedder.backend.encode_image(pixels[None])[0])
