"""Pictures to calibrate activations on, as the model sees them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from robustzs.errors import DatasetNotFoundError, ImageError, TooManyBadSamplesError
from robustzs.images.config import PreprocessConfig
from robustzs.images.decode import decode_image
from robustzs.images.preprocess import preprocess
from robustzs.images.sources import ImageSource
from robustzs_training.data.base import SampleSource
from robustzs_training.data.scan import find_split, scan_folder
from robustzs_training.export.quantize_image import MIN_PICTURES, N_PICTURES

Float32Array = npt.NDArray[np.float32]


def read_calibration_folder(
    folder: Path, config: PreprocessConfig, *, n: int = N_PICTURES, seed: int = 0
) -> Float32Array:
    """A seeded draw of the pictures in a folder and below, float32 ``[n, 3, H, W]`` in [0, 1].

    Args:
        folder: Images, sorted into folders or not; of ``train`` and ``val`` in it, ``train``.
        config: How an image becomes pixels.
        n: Pictures to read; fewer where the folder has fewer.
        seed: Of the draw.

    Raises:
        DatasetNotFoundError: No folder, or one without images, or with fewer than `MIN_PICTURES`.
        TooManyBadSamplesError: Fewer than `MIN_PICTURES` of them can be used.
    """
    folder = find_split(folder, "train")
    scan = scan_folder(folder)
    if len(scan.keys) < MIN_PICTURES:
        raise DatasetNotFoundError(
            f"{folder} has {len(scan.keys)} images, {MIN_PICTURES} are needed to calibrate",
            hint="name a folder with more pictures of the kind that will be classified",
        )

    def read(row: int) -> Image.Image:
        path = folder / scan.keys[row]
        try:
            return decode_image(ImageSource(str(path)).read())
        except ImageError as error:
            raise ImageError(f"{path}: {error}") from error

    return _drawn(read, len(scan.keys), config, n=n, seed=seed, where=str(folder))


def calibration_pictures_of(
    source: SampleSource, config: PreprocessConfig, *, n: int = N_PICTURES, seed: int = 0
) -> Float32Array:
    """The same from a source of training examples, unaugmented.

    Raises:
        TooManyBadSamplesError: Fewer than `MIN_PICTURES` can be used.
        DataError: The source is gone.
    """
    return _drawn(
        lambda row: source.read(row).image,
        len(source),
        config,
        n=n,
        seed=seed,
        where="the training data",
    )


def _drawn(
    read: Callable[[int], Image.Image],
    n_available: int,
    config: PreprocessConfig,
    *,
    n: int,
    seed: int,
    where: str,
) -> Float32Array:
    pixels: list[Float32Array] = []
    unreadable: list[str] = []
    for row in np.random.default_rng(seed).permutation(n_available).tolist():
        try:
            pixels.append(preprocess(read(row), config))
        except ImageError as error:
            unreadable.append(str(error))
        if len(pixels) == n or len(unreadable) > n:
            break
    if len(pixels) < MIN_PICTURES:
        first = f"; the first that cannot be read: {unreadable[0]}" if unreadable else ""
        raise TooManyBadSamplesError(
            f"{where} has {len(pixels)} pictures to calibrate on, at least {MIN_PICTURES} are "
            f"needed{first}",
            hint="add pictures, or repair those that cannot be read",
        )
    return np.stack(pixels)
