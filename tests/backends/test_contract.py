"""What every backend promises, whatever engine runs the towers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from robustzs.backends.base import Backend
from robustzs.backends.fake import FakeBackend
from robustzs.backends.onnx import OnnxBackend
from robustzs.backends.triton import TritonBackend, TritonTarget
from robustzs.bundle.manifest import BundleManifest
from robustzs.errors import BackendInputError, InferenceError
from tests.factories import CONTEXT_LENGTH, EMBED_DIM, IMAGE_SIZE, VOCABULARY, colour_tokens
from tests.triton.server import shared_server


def load_manifest(folder: Path) -> BundleManifest:
    return BundleManifest.model_validate_json((folder / "bundle.json").read_bytes())


def onnx_backend(folder: Path) -> Backend:
    bundle = SimpleNamespace(manifest=load_manifest(folder), file=lambda name: folder / name)
    return OnnxBackend(bundle, threads=2)


def fake_backend(folder: Path) -> Backend:
    return FakeBackend(load_manifest(folder), colours=colour_tokens())


def triton_backend(protocol: str, folder: Path) -> Backend:
    server = shared_server(folder)
    target = TritonTarget(urls=(getattr(server, protocol),))
    bundle = SimpleNamespace(manifest=load_manifest(folder), file=lambda name: folder / name)
    return TritonBackend(bundle, target)


MAKERS: dict[str, Callable[[Path], Backend]] = {
    "onnx": onnx_backend,
    "fake": fake_backend,
    "triton-grpc": partial(triton_backend, "grpc"),
    "triton-http": partial(triton_backend, "http"),
}
NAMES = [
    pytest.param(name, marks=pytest.mark.triton if name.startswith("triton") else ())
    for name in sorted(MAKERS)
]


@pytest.fixture(params=NAMES)
def backend(request: pytest.FixtureRequest, tiny_bundle: Path) -> Iterator[Backend]:
    made = MAKERS[request.param](tiny_bundle)
    yield made
    made.close()


def some_pixels(n: int, seed: int = 0) -> Any:
    shape = (n, 3, IMAGE_SIZE, IMAGE_SIZE)
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def some_ids(n: int, length: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(4, len(VOCABULARY), (n, length), dtype=np.int64)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_features_are_float32_rows(backend: Backend, n: int) -> None:
    for features in (backend.encode_image(some_pixels(n)), backend.encode_text(some_ids(n, 7))):
        assert features.shape == (n, EMBED_DIM)
        assert features.dtype == np.float32
        assert np.isfinite(features).all()


def test_features_are_raw(backend: Backend) -> None:
    for features in (backend.encode_image(some_pixels(4)), backend.encode_text(some_ids(4, 5))):
        norms = np.linalg.norm(features, axis=1)
        assert np.abs(norms - 1.0).min() > 1e-3
        assert np.ptp(norms) > 1e-3


def test_different_inputs_give_different_features(backend: Backend) -> None:
    for features in (backend.encode_image(some_pixels(4)), backend.encode_text(some_ids(4, 5))):
        assert len(np.unique(features, axis=0)) == 4


@pytest.mark.parametrize("name", NAMES)
def test_two_instances_agree_bit_for_bit(tiny_bundle: Path, name: str) -> None:
    first, second = MAKERS[name](tiny_bundle), MAKERS[name](tiny_bundle)
    pixels, ids = some_pixels(3), some_ids(3, 6)
    np.testing.assert_array_equal(first.encode_image(pixels), second.encode_image(pixels))
    np.testing.assert_array_equal(first.encode_text(ids), second.encode_text(ids))


@pytest.mark.parametrize("n", [2, 3, 8])
def test_an_image_does_not_depend_on_its_batch(backend: Backend, n: int) -> None:
    pixels = some_pixels(n)
    features = backend.encode_image(pixels)
    for row in range(n):
        alone = backend.encode_image(pixels[row : row + 1])
        np.testing.assert_array_equal(alone[0], features[row])
    shuffled = np.random.default_rng(1).permutation(n)
    np.testing.assert_array_equal(backend.encode_image(pixels[shuffled]), features[shuffled])


@pytest.mark.parametrize("n", [2, 3, 8])
def test_a_text_does_not_depend_on_its_batch_mates(backend: Backend, n: int) -> None:
    ids, others = some_ids(n, 6), some_ids(n, 6, seed=1)
    features = backend.encode_text(ids)
    for row in range(n):
        mixed = others.copy()
        mixed[row] = ids[row]
        np.testing.assert_array_equal(backend.encode_text(mixed)[row], features[row])
        # engines may sum in another order for another number of rows, and no more than that
        alone = backend.encode_text(ids[row : row + 1])
        np.testing.assert_allclose(alone[0], features[row], rtol=1e-5, atol=1e-6)


def test_views_that_are_not_contiguous_are_taken(backend: Backend) -> None:
    pixels = some_pixels(2)
    view = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert not view.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(backend.encode_image(view), backend.encode_image(pixels))


def test_eight_threads_get_what_one_gets(backend: Backend) -> None:
    inputs = [(some_pixels(1 + i % 3, seed=i), some_ids(2, 3 + i % 5, seed=i)) for i in range(24)]
    expected = [(backend.encode_image(p), backend.encode_text(t)) for p, t in inputs]
    with ThreadPoolExecutor(8) as pool:
        got = list(
            pool.map(
                lambda pair: (backend.encode_image(pair[0]), backend.encode_text(pair[1])), inputs
            )
        )
    for (image, text), (wanted_image, wanted_text) in zip(got, expected, strict=True):
        np.testing.assert_array_equal(image, wanted_image)
        np.testing.assert_array_equal(text, wanted_text)


WRONG_PIXELS: dict[str, Callable[[], Any]] = {
    "no batch": lambda: some_pixels(1)[0],
    "empty": lambda: some_pixels(1)[:0],
    "float64": lambda: some_pixels(1).astype(np.float64),
    "bytes": lambda: (some_pixels(1) * 255).astype(np.uint8),
    "channels last": lambda: some_pixels(1).transpose(0, 2, 3, 1),
    "another size": lambda: some_pixels(1)[..., :-1],
    "NaN": lambda: np.full_like(some_pixels(1), np.nan),
    "one NaN": lambda: np.where(some_pixels(1) > 0.999, np.float32("nan"), some_pixels(1)),
    "0 to 255": lambda: some_pixels(1) * 255,
    "normalised": lambda: some_pixels(1) * 2 - 1,
    "a list": lambda: some_pixels(1).tolist(),
}


@pytest.mark.parametrize("case", sorted(WRONG_PIXELS))
def test_wrong_pixels_are_refused(backend: Backend, case: str) -> None:
    with pytest.raises(BackendInputError, match="pixels must be"):
        backend.encode_image(WRONG_PIXELS[case]())


WRONG_IDS: dict[str, Callable[[], Any]] = {
    "no batch": lambda: some_ids(1, 4)[0],
    "empty": lambda: some_ids(1, 4)[:0],
    "no tokens": lambda: some_ids(1, 4)[:, :0],
    "int32": lambda: some_ids(1, 4).astype(np.int32),
    "too long": lambda: some_ids(1, CONTEXT_LENGTH + 1),
    "negative": lambda: -some_ids(1, 4),
    "text": lambda: "a dog",
}


@pytest.mark.parametrize("case", sorted(WRONG_IDS))
def test_wrong_token_ids_are_refused(backend: Backend, case: str) -> None:
    with pytest.raises(BackendInputError, match="token_ids must be"):
        backend.encode_text(WRONG_IDS[case]())


def test_a_closed_backend_refuses(backend: Backend) -> None:
    backend.encode_image(some_pixels(1))
    backend.close()
    backend.close()
    with pytest.raises(InferenceError, match="closed"):
        backend.encode_image(some_pixels(1))
    with pytest.raises(InferenceError, match="closed"):
        backend.encode_text(some_ids(1, 4))


def test_the_provider_has_a_name(backend: Backend) -> None:
    assert backend.provider.endswith("ExecutionProvider")
