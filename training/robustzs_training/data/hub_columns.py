"""Which column of a Hugging Face dataset holds the image, the class and the caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import datasets

from robustzs.errors import DataError

_IMAGE_NAMES = ("image", "img", "picture", "photo", "jpg", "jpeg", "png", "webp")
_LABEL_NAMES = ("label", "labels", "fine_label", "class", "cls", "target")
_CAPTION_NAMES = ("caption", "captions", "text", "description", "txt")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of columns.

    Attributes:
        image: Holds encoded bytes, alone or with a path.
        label: Holds class numbers (when ``names`` is given) or class names.
        names: Of the classes, in their order.
        caption: Holds a text, or several of which the first counts.
    """

    image: str
    label: str | None
    names: tuple[str, ...] | None
    caption: str | None

    @property
    def used(self) -> list[str]:
        """All that is read."""
        return [name for name in (self.image, self.label, self.caption) if name is not None]


def find_columns(features: datasets.Features, origin: str) -> Columns:
    """Find them by type, then by name.

    Class numbers without names are of no use: they are left alone where there are captions.

    Args:
        features: The dataset's columns.
        origin: The dataset, for messages.

    Raises:
        DataError: No image column, several that could be meant, or numbers without names alone.
    """
    image = _choose(
        [name for name, kind in features.items() if _is_image(name, kind)], _IMAGE_NAMES
    )
    if image is None:
        raise DataError(
            f"{origin} has no column that is clearly the image; it has {_listed(features)}",
            hint=f"the column holds Image features or bytes and is called {_IMAGE_NAMES[0]!r}",
        )
    classes = [n for n, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    label = _choose(classes, _LABEL_NAMES)
    if classes and label is None:
        raise DataError(
            f"{origin} has several columns of classes: {', '.join(classes)}",
            hint=f"call the one that counts {_LABEL_NAMES[0]!r}",
        )
    names = tuple(features[label].names) if label is not None else None
    texts = [n for n, kind in features.items() if _is_text(kind)]
    if label is None:
        label = next((name for name in _LABEL_NAMES if name in texts), None)
    captions = [n for n, kind in features.items() if _is_text(kind) or _is_texts(kind)]
    caption = next((name for name in _CAPTION_NAMES if name in captions), None)
    if label is None and caption is None and any(name in features for name in _LABEL_NAMES):
        raise DataError(
            f"{origin} has class numbers, and nothing says what the classes are called",
            hint="cast the column to ClassLabel(names=...), or store the names as texts",
        )
    return Columns(image=image, label=label, names=names, caption=caption)


def _choose(candidates: Sequence[str], preferred: Sequence[str]) -> str | None:
    if len(candidates) == 1:
        return candidates[0]
    return next((name for name in preferred if name in candidates), None)


def _is_image(name: str, kind: object) -> bool:
    if isinstance(kind, datasets.Image):
        return True
    if name not in _IMAGE_NAMES:
        return False
    if isinstance(kind, dict):
        return _is_bytes(kind.get("bytes"))
    return _is_bytes(kind)


def _is_bytes(kind: object) -> bool:
    return isinstance(kind, datasets.Value) and kind.dtype in ("binary", "large_binary")


def _is_text(kind: object) -> bool:
    return isinstance(kind, datasets.Value) and kind.dtype in ("string", "large_string")


def _is_texts(kind: object) -> bool:
    inner = kind[0] if isinstance(kind, list) and len(kind) == 1 else getattr(kind, "feature", None)
    return _is_text(inner)


def _listed(features: datasets.Features) -> str:
    shown = [f"{name} ({type(kind).__name__})" for name, kind in list(features.items())[:12]]
    return ", ".join(shown) or "none at all"
