"""Per-image outcomes as text in a card: one bit an image, so that cards can be paired later."""

from __future__ import annotations

import base64
import binascii

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robustzs.errors import CardError


def pack_outcomes(outcomes: ArrayLike) -> str:
    """Bits, the first image in the highest bit of the first byte, as base64.

    Args:
        outcomes: bool ``[n]``.
    """
    bits = np.packbits(np.asarray(outcomes, np.bool_))
    return base64.b64encode(bits.tobytes()).decode("ascii")


def unpack_outcomes(text: str, n: int) -> NDArray[np.bool_]:
    """The outcomes of ``n`` images, bool ``[n]``.

    Raises:
        CardError: Not base64, another number of images, or set bits behind the last one.
    """
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (ValueError, binascii.Error) as error:
        raise CardError(f"outcomes {text[:20]!r} are not base64") from error
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    if len(data) != (n + 7) // 8 or bits[n:].any():
        raise CardError(
            f"outcomes of {len(data)} bytes are not those of {n} images",
            hint="pack them with pack_outcomes",
        )
    return bits[:n].astype(np.bool_)
