"""Images that an attack turned, ready to be shown: clean, perturbation, adversarial, both paths."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import numpy.typing as npt
from PIL import Image

from robustzs.errors import EvaluationError

AMPLIFIED = 20
"""What perturbations are multiplied by before they are shown around grey."""
MAX_EXAMPLES = 12
_GREY = 127.5
_MAX_SIDE = 336
UInt8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class PathStep:
    """A node on the way down the tree.

    Attributes:
        name: For people.
        probability: In [0, 1]; ``None`` where it is not known.
        answer: Whether the hierarchical answer is this node.
    """

    name: str
    probability: float | None = None
    answer: bool = False


@dataclass(frozen=True, kw_only=True)
class Example:
    """An image that an attack turned.

    Attributes:
        key: The image's name.
        truth: What it shows, for people.
        clean: ``[H, W, 3]``: uint8, or float in [0, 1].
        adversarial: Likewise, of the same shape.
        clean_path: From the root to the leaf; may be empty.
        adversarial_path: Likewise.
        dataset: Where the image is from.
        attack: What turned it.
        eps: Within which radius, as people write it.
    """

    key: str
    truth: str
    clean: npt.NDArray[np.generic]
    adversarial: npt.NDArray[np.generic]
    clean_path: Sequence[PathStep] = ()
    adversarial_path: Sequence[PathStep] = ()
    dataset: str = ""
    attack: str = ""
    eps: str = ""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A row of two paths side by side.

    Attributes:
        depth: Place in both.
        clean: Of the clean image; ``None`` below its leaf.
        adversarial: Likewise.
        apart: Whether the paths have parted, here or above.
        parting: Whether they part here.
    """

    depth: int
    clean: PathStep | None
    adversarial: PathStep | None
    apart: bool
    parting: bool


def pictures(example: Example) -> tuple[UInt8Array, UInt8Array, UInt8Array]:
    """Clean image, perturbation and adversarial image, uint8 ``[H, W, 3]``.

    Raises:
        EvaluationError: Arrays of another kind.
    """
    clean, adversarial = _values(example, example.clean), _values(example, example.adversarial)
    if clean.shape != adversarial.shape:
        raise EvaluationError(
            f"the images of {example.key!r} are {clean.shape} and {adversarial.shape}"
        )
    perturbation = _GREY + AMPLIFIED * (adversarial - clean)
    return _to_uint8(clean), _to_uint8(perturbation), _to_uint8(adversarial)


def size_of(example: Example) -> float:
    """The largest change of a value, in 255ths."""
    return float(
        np.abs(_values(example, example.adversarial) - _values(example, example.clean)).max()
    )


def steps(example: Example) -> list[Step]:
    """Both paths, row by row."""
    rows: list[Step] = []
    apart = False
    pairs = zip_longest(example.clean_path, example.adversarial_path)
    for depth, (clean, adversarial) in enumerate(pairs):
        differs = clean is None or adversarial is None or clean.name != adversarial.name
        parting = differs and not apart
        apart = apart or differs
        rows.append(
            Step(depth=depth, clean=clean, adversarial=adversarial, apart=apart, parting=parting)
        )
    return rows


def png_of(image: UInt8Array) -> bytes:
    """The image as a PNG; larger ones are made smaller for the page."""
    picture = Image.fromarray(image)
    picture.thumbnail((_MAX_SIDE, _MAX_SIDE))
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def data_uri(png: bytes) -> str:
    """An image that needs no request."""
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def _values(example: Example, image: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    """0 to 255."""
    if image.ndim != 3 or image.shape[2] != 3 or min(image.shape) < 1:
        raise EvaluationError(
            f"an image of {example.key!r} is {image.dtype} {list(image.shape)}",
            hint="give uint8 [H, W, 3], or floats in [0, 1]",
        )
    if image.dtype == np.uint8:
        return image.astype(np.float64)
    values = image.astype(np.float64) * 255.0
    if not np.isfinite(values).all() or values.min() < -1e-3 or values.max() > 255.001:
        raise EvaluationError(
            f"an image of {example.key!r} is not within [0, 1]",
            hint="give uint8 [H, W, 3], or floats in [0, 1]",
        )
    return values


def _to_uint8(values: npt.NDArray[np.float64]) -> UInt8Array:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
