"""A backend without weights, for tests of whatever stands on a backend.

It is deterministic across processes and machines (hashes, no generator state) and makes sense to
the eye: image features follow the mean colour, and tokens that are given a colour follow that
colour, so that a red picture is classified as "red".
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from robustzs.backends.base import Float32Array, Int64Array
from robustzs.backends.checks import check_features, check_pixels, check_token_ids
from robustzs.bundle.manifest import BundleManifest
from robustzs.errors import InferenceError

Colour = tuple[float, float, float]

_NOISE = 0.05  # length of what is not colour, so that no two words and no two pictures coincide


class FakeBackend:
    """Features from colours and hashes.

    Args:
        manifest: of any bundle: image size, embed dim and token rules are taken from it.
        colours: token id -> RGB in [0, 1].
    """

    def __init__(
        self, manifest: BundleManifest, *, colours: Mapping[int, Colour] | None = None
    ) -> None:
        self._manifest = manifest
        self._colours = dict(colours or {})
        axes = np.stack([_hashed(f"axis {i}", manifest.embed_dim) for i in range(3)], axis=1)
        # orthogonal where there is room, so that features are as far apart as colours
        self._basis = np.linalg.qr(axes)[0].T if manifest.embed_dim >= 3 else axes.T
        self._closed = False

    @property
    def provider(self) -> str:
        """A name that no real engine has."""
        return "FakeExecutionProvider"

    @property
    def text_signature(self) -> str:
        """A name that changes with the colours."""
        return f"fake {sorted(self._colours.items())}"

    def encode_image(self, pixels: Float32Array) -> Float32Array:
        """Encode ``pixels`` ``[B, 3, H, W]`` in [0, 1] into raw features ``[B, D]``."""
        check_pixels(pixels, self._manifest)
        self._check_open()
        rows = [self._of_image(picture) for picture in pixels]
        return check_features(np.stack(rows), len(pixels), self._manifest.embed_dim, "image")

    def encode_text(self, token_ids: Int64Array) -> Float32Array:
        """Encode ``token_ids`` ``[B, T]`` into raw features ``[B, D]``."""
        check_token_ids(token_ids, self._manifest)
        self._check_open()
        rows = [self._of_tokens(ids) for ids in token_ids]
        return check_features(np.stack(rows), len(token_ids), self._manifest.embed_dim, "text")

    def close(self) -> None:
        """Refuse every call from now on."""
        self._closed = True

    def _of_image(self, picture: Float32Array) -> Float32Array:
        digest = hashlib.sha256(np.ascontiguousarray(picture).tobytes()).hexdigest()
        colour = picture.mean(axis=(1, 2), dtype=np.float64)
        return self._feature(colour, digest)

    def _of_tokens(self, token_ids: Int64Array) -> Float32Array:
        ids = [int(token) for token in token_ids if token != self._manifest.tokenizer.pad_id]
        colours = [self._colours[token] for token in ids if token in self._colours]
        colour = np.mean(colours, axis=0) if colours else np.full(3, 0.5)
        return self._feature(colour, " ".join(map(str, ids)))

    def _feature(
        self, colour: np.ndarray[tuple[int, ...], np.dtype[np.float64]], seed: str
    ) -> Float32Array:
        noise = _hashed(seed, self._manifest.embed_dim)
        return np.asarray(3.0 * ((colour - 0.5) @ self._basis + _NOISE * noise), np.float32)

    def _check_open(self) -> None:
        if self._closed:
            raise InferenceError("the backend is closed", hint="load the classifier again")


def _hashed(seed: str, n: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """A unit vector ``[n]`` that depends on nothing but ``seed``."""
    stream = hashlib.shake_256(seed.encode()).digest(4 * n)
    values = np.frombuffer(stream, "<u4").astype(np.float64) / 2**32 - 0.5
    return np.asarray(values / np.linalg.norm(values))
