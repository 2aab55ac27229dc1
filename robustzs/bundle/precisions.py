"""Which of a bundle's encoders runs."""

from __future__ import annotations

from collections.abc import Mapping

from robustzs.bundle.manifest import Precision
from robustzs.errors import UsageError


def encoder_file(encoders: Mapping[Precision, str], precision: Precision, tower: str) -> str:
    """The file of a variant.

    Args:
        encoders: ``image_encoders`` or ``text_encoders`` of a manifest.
        precision: Which.
        tower: ``image`` or ``text``, for the error.

    Raises:
        UsageError: The bundle has no such encoder.
    """
    if precision not in encoders:
        raise UsageError(
            f"this bundle has no {tower} encoder of precision {precision!r}",
            hint=f"it has {', '.join(sorted(encoders))}",
        )
    return encoders[precision]
