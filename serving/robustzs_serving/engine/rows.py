"""What the engine gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from robustzs.backends.base import Float32Array
from robustzs.errors import RobustZSError


@dataclass(frozen=True)
class ErrorRow:
    """One image that could not be answered; its neighbours are not concerned.

    Attributes:
        error: what went wrong; ``robustzs_serving.errors`` knows its status and envelope.
    """

    error: RobustZSError

    @property
    def code(self) -> str:
        """Stable code of the error."""
        return self.error.code


@dataclass(frozen=True)
class Embedded:
    """Raw features, not normalised.

    Attributes:
        images: ``[D]`` of each image, or its error, in order.
        texts: ``[N, D]``; no rows where no texts were given.
    """

    images: tuple[Float32Array | ErrorRow, ...]
    texts: Float32Array


@dataclass(frozen=True, kw_only=True)
class Description:
    """The model that answers.

    Attributes:
        name: of the bundle.
        names: every name that a client may ask for.
        digest: of the bundle.
        provider: the execution provider really in use.
        precision: of the image encoder.
        text_precision: of the text encoder.
        embed_dim: length of its features.
        image_size: height and width of its input.
        card: its ``card.json`` as it is, or ``None`` where it has none.
    """

    name: str
    names: tuple[str, ...]
    digest: str
    provider: str
    precision: str
    text_precision: str
    embed_dim: int
    image_size: tuple[int, int]
    card: dict[str, Any] | None
