"""What every backend checks at its boundary."""

from __future__ import annotations

import numpy as np

from robustzs.backends.base import Float32Array, Int64Array
from robustzs.bundle.manifest import BundleManifest
from robustzs.errors import BackendInputError, InferenceError

_RANGE_TOLERANCE = 1e-5  # float32 rounding of pixels that were clipped elsewhere


def check_pixels(pixels: Float32Array, manifest: BundleManifest) -> None:
    """Check that ``pixels`` is float32 ``[B, 3, H, W]`` of the model's size, within [0, 1].

    Raises:
        BackendInputError: naming what differs.
    """
    height, width = manifest.preprocess.image_size
    wanted = f"float32 [B, 3, {height}, {width}] with B >= 1"
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.float32:
        raise BackendInputError(f"pixels must be {wanted}, got {_describe(pixels)}")
    if pixels.ndim != 4 or pixels.shape[0] < 1 or pixels.shape[1:] != (3, height, width):
        raise BackendInputError(f"pixels must be {wanted}, got {_describe(pixels)}")
    low, high = float(pixels.min()), float(pixels.max())
    # written so that NaN fails, too
    if not (low >= -_RANGE_TOLERANCE and high <= 1.0 + _RANGE_TOLERANCE):
        raise BackendInputError(
            f"pixels must be within [0, 1], got {low:g} to {high:g}",
            hint="divide bytes by 255; normalisation is part of the model",
        )


def check_token_ids(token_ids: Int64Array, manifest: BundleManifest) -> None:
    """Check that ``token_ids`` is int64 ``[B, T]`` with a length that the text encoder takes.

    Raises:
        BackendInputError: naming what differs.
    """
    longest = manifest.tokenizer.context_length
    shortest = longest if manifest.tokenizer.fixed_length else 1
    length = f"T = {longest}" if shortest == longest else f"1 <= T <= {longest}"
    wanted = f"int64 [B, T] with B >= 1 and {length}"
    if not isinstance(token_ids, np.ndarray) or token_ids.dtype != np.int64:
        raise BackendInputError(f"token_ids must be {wanted}, got {_describe(token_ids)}")
    if token_ids.ndim != 2 or token_ids.shape[0] < 1:
        raise BackendInputError(f"token_ids must be {wanted}, got {_describe(token_ids)}")
    if not shortest <= token_ids.shape[1] <= longest:
        raise BackendInputError(f"token_ids must be {wanted}, got {_describe(token_ids)}")
    if int(token_ids.min()) < 0:
        raise BackendInputError(f"token_ids must be >= 0, got {int(token_ids.min())}")


def check_features(features: Float32Array, n_rows: int, embed_dim: int, tower: str) -> Float32Array:
    """Check what a tower gave: float ``[B, D]``, finite; returned as float32.

    Raises:
        InferenceError: naming what differs.
    """
    if features.shape != (n_rows, embed_dim):
        raise InferenceError(
            f"the {tower} encoder gave shape {list(features.shape)} where the bundle promises "
            f"[{n_rows}, {embed_dim}]"
        )
    if not np.isfinite(features).all():
        raise InferenceError(
            f"the {tower} encoder gave features that are not finite",
            hint="fp16 towers overflow on some inputs: try precision fp32",
        )
    return np.ascontiguousarray(features, np.float32)


def _describe(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    return type(value).__name__
