"""The held-out photographs as features, and what is right for each of them.

Nothing is trained on them. Temperature, theta and the thresholds of a low-confidence flag and of
"none of these" are set on them, as the card says. They come from ``benchmarks/heldout_photos`` of
the repository, so this module works in a checkout only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from robustzs.images.config import PreprocessConfig
from robustzs.images.decode import decode_image
from robustzs.images.preprocess import preprocess

PREPROCESS = PreprocessConfig(
    image_size=(224, 224), resize_mode="shortest", resize_size=None, interpolation="bicubic"
)


@dataclass(frozen=True, kw_only=True)
class Photographs:
    """Named photographs.

    Attributes:
        ids: Source and path.
        wnids: What each shows.
        pixels: ``[n, 3, 224, 224]`` in [0, 1].
        right: ``[n, 1000]``: the classes that are right; all false where none is.
    """

    ids: tuple[str, ...]
    wnids: tuple[str, ...]
    pixels: npt.NDArray[np.float32]
    right: npt.NDArray[np.bool_]

    @property
    def scorable(self) -> npt.NDArray[np.bool_]:
        """``[n]``: whether a class of ImageNet can be right."""
        return np.asarray(self.right.any(1))


def load_photographs(class_wnids: Sequence[str]) -> Photographs:
    """Load all named photographs, scorable or not, in the order of their table."""
    from benchmarks.heldout_photos.photos import load_photos
    from robustzs.labels import Label, LabelSet
    from robustzs.metrics.right import RightLabels

    answers = RightLabels(
        LabelSet(tuple(Label(wnid, wnid, wnid, synset=wnid) for wnid in class_wnids))
    )
    photos: list[Any] = load_photos(kind="photo", scorable=None)
    right = np.zeros((len(photos), len(class_wnids)), bool)
    scorable = {p.id for p in load_photos(kind="photo", scorable=True)}
    for row, photo in enumerate(photos):
        if photo.id in scorable:
            right[row, answers.columns_of(photo.wnid)[0]] = True
    return Photographs(
        ids=tuple(p.id for p in photos),
        wnids=tuple(p.wnid for p in photos),
        pixels=np.stack([preprocess(decode_image(p.data), PREPROCESS) for p in photos]),
        right=right,
    )


def top1(logits: npt.NDArray[np.floating[Any]], right: npt.NDArray[np.bool_]) -> float:
    """Share of rows whose largest logit is at a right class."""
    return float(right[np.arange(len(logits)), logits.argmax(1)].mean())
