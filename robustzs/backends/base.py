"""The boundary to an inference engine.

A backend turns pixels and token ids into **raw** features. It neither normalises nor scores: that
is done in one place, ``robustzs.scoring``, whatever engine ran the towers. Every implementation
passes the same contract test (``tests/backends/test_contract.py``).
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
Int64Array = npt.NDArray[np.int64]


class Backend(Protocol):
    """An engine with both towers of one bundle. Safe to call from several threads."""

    @property
    def provider(self) -> str:
        """The execution provider really in use, such as ``CPUExecutionProvider``."""
        ...

    @property
    def text_signature(self) -> str:
        """What text features depend on beside the bundle: engine, provider and precision.

        Cached text features are valid for backends of one bundle with equal signatures.
        """
        ...

    def encode_image(self, pixels: Float32Array) -> Float32Array:
        """Encode ``pixels`` ``[B, 3, H, W]`` in [0, 1] into raw features ``[B, D]``, B >= 1.

        Raises:
            BackendInputError: wrong dtype or shape.
            InferenceError: the engine failed.
        """
        ...

    def encode_text(self, token_ids: Int64Array) -> Float32Array:
        """Encode ``token_ids`` ``[B, T]`` into raw features ``[B, D]``, B >= 1.

        Raises:
            BackendInputError: wrong dtype or shape.
            InferenceError: the engine failed.
        """
        ...

    def close(self) -> None:
        """Free the engine. Calls after it raise ``InferenceError``."""
        ...
