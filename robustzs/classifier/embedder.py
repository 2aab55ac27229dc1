"""A model that is ready to run: images and texts in, raw features out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from robustzs.answer import AnswerError, ErrorBody
from robustzs.backends.base import Backend, Float32Array
from robustzs.backends.threads import available_cpus
from robustzs.bundle.registry import resolve_model
from robustzs.bundle.store import Bundle
from robustzs.classifier.inputs import ImageInput, image_name, to_pixels
from robustzs.classifier.streaming import Decoded, decode_ahead
from robustzs.errors import ImageError, UsageError
from robustzs.features import Progress, TextFeatureCache, TextFeatures
from robustzs.images.limits import DEFAULT_LIMITS, ImageLimits

if TYPE_CHECKING:
    from pathlib import Path

    from robustzs.backends.triton import TritonTarget
    from robustzs.bundle.manifest import BundleManifest, Precision
    from robustzs.tokenizer import Tokenizer

MAX_BATCH_SIZE = 4096
Perturb = Callable[[Float32Array, Sequence[int]], Float32Array]
"""Pixels ``[B, 3, H, W]`` and the images' places among all -> other pixels, in [0, 1]."""


class Embedder:
    """A bundle and the engine that runs it. Safe to use from several threads.

    Args:
        bundle: an opened bundle.
        backend: runs its towers; closed with the embedder.
        limits: on every image.

    Attributes:
        bundle: as given.
        backend: as given.
        limits: as given.
        text: class vectors, cached on disk.
    """

    def __init__(
        self, bundle: Bundle, backend: Backend, *, limits: ImageLimits = DEFAULT_LIMITS
    ) -> None:
        self.bundle = bundle
        self.backend = backend
        self.limits = limits
        self._tokenizer: Tokenizer | None = None
        self._lock = threading.Lock()
        self.text = TextFeatures(bundle.manifest, backend, self._get_tokenizer, TextFeatureCache())

    @classmethod
    def load(
        cls,
        model: str | Path = "robustzs-lite",
        *,
        device: str = "cpu",
        threads: int | None = None,
        image_threads: int | None = None,
        image_precision: Precision | None = None,
        text_precision: Precision | None = None,
        expect_digest: str | None = None,
        limits: ImageLimits = DEFAULT_LIMITS,
        triton: TritonTarget | None = None,
    ) -> Embedder:
        """Open a bundle in ONNX Runtime, or on Triton servers.

        Args:
            model: a name of ``robustzs models list``, or a bundle's folder.
            device: ``cpu``, ``cuda``, ``cuda:N``, ``auto`` or an execution provider.
            threads: of one operator; by default the CPUs that this process may use.
            image_threads: of one operator of the image encoder; by default ``threads``.
            image_precision: variant of the image encoder; by default the bundle's choice.
            text_precision: variant of the text encoder; by default the bundle's choice.
            expect_digest: refuse the bundle unless it has this digest.
            limits: on every image.
            triton: servers that run its encoders, instead of ONNX Runtime in this process.

        Raises:
            BundleError: no such model, or not whole.
            BackendError: the engine cannot run it.
            UsageError: an option is out of range.
        """
        from robustzs.backends.onnx import OnnxBackend
        from robustzs.backends.triton import TritonBackend

        if triton is not None and (device != "cpu" or threads is not None):
            raise UsageError(
                "device and threads are the Triton server's own", hint="leave them out"
            )
        bundle = Bundle.load(resolve_model(model), expect_digest=expect_digest)
        if triton is not None:
            remote = TritonBackend(
                bundle, triton, image_precision=image_precision, text_precision=text_precision
            )
            return cls(bundle, remote, limits=limits)
        backend = OnnxBackend(
            bundle,
            device=device,
            threads=threads,
            image_threads=image_threads,
            image_precision=image_precision,
            text_precision=text_precision,
        )
        return cls(bundle, backend, limits=limits)

    @property
    def manifest(self) -> BundleManifest:
        """The bundle's record."""
        return self.bundle.manifest

    def preprocess(self, image: ImageInput) -> Float32Array:
        """One image as the model's ``pixels`` ``[3, H, W]`` in [0, 1].

        Raises:
            ImageError: anything that is wrong with the image.
        """
        return to_pixels(image, self.manifest.preprocess, self.limits)

    def embed_images(
        self, images: Iterable[ImageInput], *, batch_size: int = 16
    ) -> Iterator[tuple[str, Float32Array | AnswerError]]:
        """Raw features ``[D]`` of every image, with its name, in order.

        Args:
            images: read as they are needed; may be endless.
            batch_size: images per inference, 1 to 4096.

        Yields:
            A name and its features, or the error of an image that cannot be read.
        """
        for decoded, features in self.batches(images, batch_size=batch_size):
            vectors = iter(features)
            for row in decoded:
                name = image_name(row.item)
                yield name, next(vectors) if row.error is None else error_row(name, row.error)

    def batches(
        self,
        images: Iterable[ImageInput],
        *,
        batch_size: int,
        perturb: Perturb | None = None,
    ) -> Iterator[tuple[list[Decoded[ImageInput]], Float32Array]]:
        """Decoded images, and the raw features ``[B, D]`` of those without an error, in order.

        The next images are decoded while the model runs; memory does not grow with their number.

        Args:
            images: read as they are needed; may be endless.
            batch_size: images per inference, 1 to 4096.
            perturb: changes pixels before the model sees them.

        Raises:
            UsageError: ``batch_size`` is out of range.
            BackendError: the engine failed.
        """
        check_batch_size(batch_size)
        ahead = decode_ahead(
            images, self.preprocess, batch_size=batch_size, workers=available_cpus()
        )
        start = 0
        for decoded in ahead:
            good = [row.pixels for row in decoded if row.pixels is not None]
            pixels = np.stack(good) if good else None
            if perturb is not None and pixels is not None:
                places = [start + i for i, row in enumerate(decoded) if row.pixels is not None]
                pixels = perturb(pixels, places)
            start += len(decoded)
            for row in decoded:
                row.pixels = None  # held once, in the batch
            del good
            if pixels is None:
                yield decoded, np.empty((0, self.manifest.embed_dim), np.float32)
            else:
                yield decoded, self.backend.encode_image(pixels)

    def embed_texts(
        self, texts: Sequence[str], *, progress: Progress | None = None
    ) -> Float32Array:
        """Raw features ``[N, D]`` of whole texts; no template is put around them.

        Args:
            texts: N >= 1.
            progress: called after every inference.
        """
        if not texts:
            raise UsageError("there are no texts to embed")
        return self.text.raw(texts, progress=progress)

    def close(self) -> None:
        """Free the engine; calls after it raise ``InferenceError``."""
        self.backend.close()

    def __enter__(self) -> Embedder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _get_tokenizer(self) -> Tokenizer:
        """The tokenizer, made at its first use: with cached text features there is none."""
        with self._lock:
            if self._tokenizer is None:
                from robustzs.tokenizer import Tokenizer

                self._tokenizer = Tokenizer.from_bundle(self.bundle)
            return self._tokenizer


def check_batch_size(batch_size: int) -> None:
    """Check that a number of images per inference is from 1 to 4096.

    Raises:
        UsageError: it is not.
    """
    is_whole = isinstance(batch_size, int) and not isinstance(batch_size, bool)
    if not is_whole or not 1 <= batch_size <= MAX_BATCH_SIZE:
        raise UsageError(f"batch_size must be from 1 to {MAX_BATCH_SIZE}, got {batch_size!r}")


def error_row(name: str, error: ImageError) -> AnswerError:
    """What stands in the place of an image that cannot be read."""
    return AnswerError(image=name, error=ErrorBody(code=error.code, message=str(error)))
