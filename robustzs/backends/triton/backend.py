"""``base.Backend`` on one or several Triton servers."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from robustzs.backends.base import Float32Array, Int64Array
from robustzs.backends.checks import check_features, check_pixels, check_token_ids
from robustzs.backends.triton import contract
from robustzs.backends.triton.contract import BundleLike, Tower
from robustzs.backends.triton.endpoint import Endpoint, ServerReport
from robustzs.backends.triton.target import TritonTarget
from robustzs.bundle.manifest import Precision
from robustzs.errors import (
    BackendError,
    BackendMismatchError,
    BackendOverloadedError,
    BackendUnavailableError,
    InferenceError,
    UsageError,
)

T = TypeVar("T")
_WHITE = np.float32(255.0)
# What to tell of several servers that failed: the more can be done about it, the sooner.
_TELLING = (BackendOverloadedError, BackendMismatchError)


class TritonBackend:
    """Both towers of a bundle on Triton; safe to call from several threads.

    The first server of the list that works is asked. One that fails is asked after the others, and
    looked at in the background, now and then (after 0.25 to 5 seconds, longer each time), until it
    works again: no request waits for it while another server answers. Where none does, all are
    tried, so that a single server is found as soon as it is back. An inference that failed on one
    server is made on the next one: it has no side effects.

    Nothing is sent before the first call. A server's weights must be the bundle's, by digest.

    Args:
        bundle: an opened bundle; its encoders are not loaded.
        target: the servers.
        image_precision: refuse servers with another variant of the image encoder.
        text_precision: refuse servers with another variant of the text encoder.

    Raises:
        MissingExtraError: tritonclient is not installed.
        UsageError: the bundle has no such variant.
    """

    def __init__(
        self,
        bundle: BundleLike,
        target: TritonTarget,
        *,
        image_precision: Precision | None = None,
        text_precision: Precision | None = None,
    ) -> None:
        self._manifest = manifest = bundle.manifest
        asked: dict[Tower, Precision | None] = {"image": image_precision, "text": text_precision}
        wanted: dict[Tower, Precision] = {}
        digests: dict[Tower, dict[str, Precision]] = {}
        for tower, precision in asked.items():
            files = contract.encoders(manifest, tower)
            if precision is not None:
                if precision not in files:
                    raise UsageError(
                        f"this bundle has no {tower} encoder of precision {precision!r}",
                        hint=f"it has {', '.join(sorted(files))}",
                    )
                wanted[tower] = precision
            digests[tower] = {
                contract.tower_digest(bundle, file): variant for variant, file in files.items()
            }
        self._wanted = wanted
        self._endpoints = tuple(
            Endpoint(address, target, bundle, wanted, digests) for address in target.addresses
        )
        self._last: Endpoint | None = None
        self._closed = False

    @property
    def provider(self) -> str:
        """Triton's; which device it uses is its own business."""
        return "TritonExecutionProvider"

    @property
    def image_precision(self) -> Precision:
        """Variant of the image encoder on the server that answered last; asks none."""
        return self._precision("image", self._manifest.default_image_precision)

    @property
    def text_precision(self) -> Precision:
        """Variant of the text encoder on the server that answered last; asks none."""
        return self._precision("text", self._manifest.default_text_precision)

    @property
    def text_signature(self) -> str:
        """Precision of the text tower and kind of its instances.

        Raises:
            BackendUnavailableError: no server tells.
        """
        tower = self._somewhere(lambda endpoint: endpoint.towers()["text"])
        return f"triton {' '.join(tower.kinds)} {tower.precision}"

    def encode_image(self, pixels: Float32Array) -> Float32Array:
        """Encode ``pixels`` ``[B, 3, H, W]`` in [0, 1] into raw features ``[B, D]``."""
        check_pixels(pixels, self._manifest)
        whole = _as_bytes(pixels)
        if whole is None:
            return self._encode("image", pixels, as_bytes=False)
        return self._encode("image", whole, as_bytes=True)

    def encode_text(self, token_ids: Int64Array) -> Float32Array:
        """Encode ``token_ids`` ``[B, T]`` into raw features ``[B, D]``."""
        check_token_ids(token_ids, self._manifest)
        return self._encode("text", token_ids, as_bytes=False)

    def report(self) -> list[ServerReport]:
        """How every server does now; blocks for as long as the slowest needs to say so."""
        if len(self._endpoints) == 1:
            return [self._endpoints[0].report()]
        with ThreadPoolExecutor(len(self._endpoints), thread_name_prefix="robustzs-report") as pool:
            return list(pool.map(Endpoint.report, self._endpoints))

    def close(self) -> None:
        """Cancel what runs."""
        self._closed = True
        for endpoint in self._endpoints:
            endpoint.close()

    def _encode(self, tower: Tower, values: npt.NDArray[Any], *, as_bytes: bool) -> Float32Array:
        parts = self._somewhere(lambda endpoint: endpoint.infer(tower, values, as_bytes=as_bytes))
        return check_features(np.concatenate(parts), len(values), self._manifest.embed_dim, tower)

    def _somewhere(self, ask: Callable[[Endpoint], T]) -> T:
        """What the first server says that says anything."""
        working = [endpoint for endpoint in self._endpoints if not endpoint.failing]
        failing = [endpoint for endpoint in self._endpoints if endpoint.failing]
        if working and not self._closed:
            for endpoint in failing:
                endpoint.look_again()
        errors: list[BackendError] = []
        broken: list[Endpoint] = []
        for endpoint in (*working, *failing):
            if self._closed:
                break
            try:
                answer = ask(endpoint)
            except InferenceError as error:  # the input's fault, unless another server takes it
                errors.append(error)
                broken.append(endpoint)
            except BackendUnavailableError as error:
                errors.append(error)
                if not isinstance(error, BackendOverloadedError):  # it works, and has no time
                    endpoint.failed()
            else:
                for other in broken:
                    other.failed()
                endpoint.succeeded()
                self._last = endpoint
                return answer
        if self._closed:
            raise InferenceError("the backend is closed", hint="load the classifier again")
        raise _all_of(errors)

    def _precision(self, tower: Tower, default: Precision) -> Precision:
        if tower in self._wanted:
            return self._wanted[tower]
        asked = (self._last, *self._endpoints) if self._last is not None else self._endpoints
        seen = next((one.seen for one in asked if one.seen is not None), None)
        return default if seen is None else seen[tower].precision


def _as_bytes(pixels: Float32Array) -> npt.NDArray[np.uint8] | None:
    """``pixels`` times 255, where dividing that by 255 gives the very same values again."""
    whole = np.rint(pixels * _WHITE).clip(0.0, 255.0).astype(np.uint8)
    same = np.array_equal(np.divide(whole, _WHITE, dtype=np.float32), pixels)
    return whole if same else None


def _all_of(errors: list[BackendError]) -> BackendError:
    # that the model failed is told where all servers ran it: one that could not may do better later
    able = [error for error in errors if not isinstance(error, InferenceError)] or errors
    telling = next(
        (error for kind in _TELLING for error in able if isinstance(error, kind)), able[0]
    )
    if len(errors) == 1:
        return telling
    message = f"none of {len(errors)} Triton servers answers: "
    message += "; ".join(error.message for error in errors)
    return type(telling)(message, hint=telling.hint)
