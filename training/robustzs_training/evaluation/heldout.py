"""Labelled pictures that a model is measured on before and after training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from robustzs.errors import DataError, ImageError
from robustzs.images.config import PreprocessConfig
from robustzs.images.preprocess import preprocess
from robustzs.labels import LabelSet
from robustzs_training.data.base import SampleSource
from robustzs_training.recipe import DataPart, EvaluatePart

MAX_UNREADABLE = 0.01
_HELD_OUT = "val"


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Pictures as a model sees them, and what is right for each.

    Attributes:
        keys: Names of the pictures.
        pixels: float32 ``[n, 3, H, W]`` in [0, 1].
        labels: int64 ``[n]``, places in ``classes``.
        classes: What to choose from.
        source: Where the pictures come from, and what is known about their part in training.
        digest: Sha256 over names, classes and pixels, in hex.
        n_available: Pictures that these were taken from.
    """

    keys: tuple[str, ...]
    pixels: torch.Tensor
    labels: torch.Tensor
    classes: LabelSet
    source: str
    digest: str
    n_available: int

    def __len__(self) -> int:
        return len(self.keys)


def heldout_of(
    part: EvaluatePart,
    data: DataPart,
    config: PreprocessConfig,
    *,
    cache: Path,
    seed: int = 0,
    max_unreadable: float = MAX_UNREADABLE,
) -> HeldOut | None:
    """The pictures that a recipe measures on.

    A labelled folder named in ``evaluate.path``; else what the data itself holds out: the split
    ``val`` beside the one that a folder is trained on; else none.

    Args:
        part: What the recipe says about measuring.
        data: What it trains on.
        config: How an image becomes pixels of the model that is measured.
        cache: Where generated pictures are kept.
        seed: Of the subset, where ``n_images`` asks for one.
        max_unreadable: Share of the pictures that may be broken.

    Raises:
        DatasetNotFoundError: No such folder.
        DataError: The folder has no classes, or pictures cannot be read.
    """
    found = _open(part, data, cache)
    if found is None:
        return None
    source, text = found
    return read_pictures(
        source,
        config,
        text=text,
        n_images=part.n_images,
        seed=seed,
        max_unreadable=max_unreadable,
    )


def _open(part: EvaluatePart, data: DataPart, cache: Path) -> tuple[SampleSource, str] | None:
    """The pictures that could be measured on, and what a protocol says about them."""
    if part.path is not None:
        from robustzs_training.data.folders import open_folder

        folder = Path(part.path).expanduser()
        text = f"{folder}: whether it was trained on is for its owner to know"
        return open_folder(folder, split="val"), text
    if data.source == "openmoji":
        from robustzs_training.data.openmoji import open_held_out

        text = (
            "OpenMoji drawings on generated textures and crops of scikit-learn's photographs; "
            "one picture of each concept, none of these concepts trained on"
        )
        return open_held_out(cache=cache), text
    beside = _val_beside(data)
    if beside is None:
        return None
    from robustzs_training.data.folders import open_folder

    source = open_folder(beside, split=_HELD_OUT, by_wnid=data.source == "wnid-folder")
    return source, f"{beside / _HELD_OUT}, the split beside the one that is trained on"


def _val_beside(data: DataPart) -> Path | None:
    """The folder that holds the trained split and ``val``."""
    if data.source not in ("folder", "wnid-folder") or not data.path or data.split == _HELD_OUT:
        return None
    given = Path(data.path).expanduser()
    for folder, split in ((given, data.split), (given.parent, given.name)):
        if split != _HELD_OUT and (folder / split).is_dir() and (folder / _HELD_OUT).is_dir():
            return folder
    return None


def read_pictures(
    source: SampleSource,
    config: PreprocessConfig,
    *,
    text: str,
    n_images: int | None = None,
    seed: int = 0,
    max_unreadable: float = MAX_UNREADABLE,
) -> HeldOut:
    """Read all pictures of a source, or a seeded subset, as a model sees them.

    Args:
        source: With classes.
        config: How an image becomes pixels.
        text: What the protocol says about the pictures.
        n_images: Size of the subset; ``None`` for all.
        seed: Of the subset.
        max_unreadable: Share of the pictures that may be broken.

    Raises:
        DataError: No classes, or more of the pictures cannot be read.
    """
    if source.labels is None:
        raise DataError(
            "pictures without classes cannot be measured on",
            hint="sort them into one folder for each class",
        )
    rows = np.arange(len(source))
    if n_images is not None and n_images < len(rows):
        rows = np.sort(np.random.default_rng(seed).permutation(len(rows))[:n_images])
    keys, pixels, labels, unreadable = [], [], [], []
    for row in rows.tolist():
        try:
            sample = source.read(row)
            found = torch.from_numpy(preprocess(sample.image, config))
        except ImageError as error:
            unreadable.append(str(error))
            continue
        if sample.label is None:
            continue
        keys.append(sample.key)
        pixels.append(found)
        labels.append(sample.label)
    if not keys or len(unreadable) > max_unreadable * len(rows):
        raise DataError(
            f"{len(unreadable)} of {len(rows)} pictures cannot be used; first: "
            f"{unreadable[0] if unreadable else 'they have no class'}",
            hint="repair or remove them",
        )
    stacked, places = torch.stack(pixels), torch.tensor(labels)
    return HeldOut(
        keys=tuple(keys),
        pixels=stacked,
        labels=places,
        classes=source.labels,
        source=text,
        digest=_digest(source.labels, keys, stacked, places),
        n_available=len(source),
    )


def _digest(classes: LabelSet, keys: list[str], pixels: torch.Tensor, labels: torch.Tensor) -> str:
    import hashlib

    total = hashlib.sha256(classes.digest.encode())
    total.update("\n".join(keys).encode("utf-8", "surrogateescape"))
    total.update(labels.numpy().astype("<i8").tobytes())
    for image in pixels:
        total.update((image * 255.0).round().to(torch.uint8).numpy().tobytes())
    return total.hexdigest()
