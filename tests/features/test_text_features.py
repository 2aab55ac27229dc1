from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustzs.backends.fake import FakeBackend
from robustzs.backends.onnx import OnnxBackend
from robustzs.bundle.store import Bundle
from robustzs.errors import InferenceError
from robustzs.features import TextFeatureCache, TextFeatures, encode_texts, text_features_key
from robustzs.labels.templates import get_templates
from robustzs.scoring import class_features
from robustzs.tokenizer import Tokenizer
from tests.factories import COLOURS, colour_tokens, write_manifest

WORDS = sorted(COLOURS)
TWO = get_templates(["a photo of a {}.", "{}"])


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle)


class Counting:
    """A backend that counts texts and remembers the shapes of its inferences."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.shapes: list[tuple[int, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def encode_text(self, token_ids: Any) -> Any:
        self.shapes.append(token_ids.shape)
        return self.inner.encode_text(token_ids)

    @property
    def n_texts(self) -> int:
        return sum(shape[0] for shape in self.shapes)


@pytest.fixture
def backend(bundle: Bundle) -> Counting:
    return Counting(OnnxBackend(bundle, threads=1))


def features_of(bundle: Bundle, backend: Any, cache: TextFeatureCache | None) -> TextFeatures:
    return TextFeatures(bundle.manifest, backend, lambda: Tokenizer.from_bundle(bundle), cache)


def test_classes_are_the_joined_templates(bundle: Bundle, backend: Counting) -> None:
    got = features_of(bundle, backend, None).classes(WORDS, TWO)
    tokenizer = Tokenizer.from_bundle(bundle)
    for row, word in enumerate(WORDS):
        alone = [backend.encode_text(tokenizer([text])) for text in TWO.fill(word)]
        wanted = class_features(np.stack(alone, axis=1), bundle.manifest.geometry)
        np.testing.assert_allclose(got[row], wanted[0], atol=1e-6)


def test_the_second_time_nothing_is_encoded_and_no_tokenizer_made(
    bundle: Bundle, backend: Counting, tmp_path: Path
) -> None:
    cache = TextFeatureCache(tmp_path / "cache")
    first = features_of(bundle, backend, cache).classes(WORDS, TWO)
    assert backend.n_texts == 2 * len(WORDS)

    def no_tokenizer() -> Tokenizer:
        raise AssertionError("the tokenizer was made")

    again = TextFeatures(bundle.manifest, backend, no_tokenizer, cache)  # type: ignore[arg-type]
    np.testing.assert_array_equal(again.classes(WORDS, TWO), first)
    assert backend.n_texts == 2 * len(WORDS)


def test_the_same_texts_in_another_order_are_not_encoded_again(
    bundle: Bundle, backend: Counting, tmp_path: Path
) -> None:
    features = features_of(bundle, backend, TextFeatureCache(tmp_path / "cache"))
    first = features.classes(WORDS, TWO)
    places = [*range(len(WORDS) - 1, -1, -1), 0]
    again = features.classes([WORDS[place] for place in places], TWO)
    np.testing.assert_array_equal(again, first[places])
    assert backend.n_texts == 2 * len(WORDS)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_only_texts_of_one_length_share_an_inference(bundle: Bundle, backend: Counting) -> None:
    texts = ["dog", "a dog", "cat", "a photo of a dog", "the cat"]
    encode_texts(texts, backend, Tokenizer.from_bundle(bundle))
    assert backend.shapes == [(2, 3), (2, 4), (1, 7)]


def test_texts_do_not_depend_on_their_company(bundle: Bundle) -> None:
    backend, tokenizer = OnnxBackend(bundle, threads=2), Tokenizer.from_bundle(bundle)
    texts = [f"a {a} and a {b} photo" for a in WORDS for b in WORDS] + WORDS
    together = encode_texts(texts, backend, tokenizer)
    for row in range(0, len(texts), 37):
        alone = encode_texts([texts[row]], backend, tokenizer)[0]
        np.testing.assert_allclose(together[row], alone, rtol=1e-5, atol=1e-6)


def test_equal_texts_are_encoded_once(bundle: Bundle, backend: Counting) -> None:
    got = encode_texts(["dog", "cat", "DOG", "dog"], backend, Tokenizer.from_bundle(bundle))
    assert backend.n_texts == 2
    np.testing.assert_array_equal(got[[0, 0]], got[[2, 3]])


def test_a_graph_of_fixed_length_gets_padded_rows(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "fixed"
    shutil.copytree(tiny_bundle, folder)
    tokenizer = {"kind": "wordpiece", "context_length": 12, "fixed_length": True, "pad_id": 0}
    write_manifest(folder, tokenizer=tokenizer)
    bundle = Bundle.load(folder)
    backend = Counting(OnnxBackend(bundle, threads=1))
    got = encode_texts(["dog", "a photo of a cat"], backend, Tokenizer.from_bundle(bundle))
    assert backend.shapes == [(2, 12)]
    ragged = Bundle.load(tiny_bundle)
    wanted = encode_texts(
        ["dog", "a photo of a cat"],
        OnnxBackend(ragged, threads=1),
        Tokenizer.from_bundle(ragged),
    )
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_progress_counts_texts_up_to_all(bundle: Bundle, backend: Counting) -> None:
    seen: list[tuple[int, int]] = []
    features_of(bundle, backend, None).classes(
        WORDS, TWO, progress=lambda done, total: seen.append((done, total))
    )
    assert [total for _, total in seen] == [2 * len(WORDS)] * len(seen)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1][0] == 2 * len(WORDS)


def test_many_classes_are_computed_in_parts(
    bundle: Bundle, backend: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = features_of(bundle, backend, None).classes(WORDS, TWO)
    monkeypatch.setattr("robustzs.features._TEXTS_AT_ONCE", 5)
    seen: list[int] = []
    parts = features_of(bundle, backend, None).classes(
        WORDS, TWO, progress=lambda done, _: seen.append(done)
    )
    np.testing.assert_allclose(parts, whole, atol=1e-6)
    assert seen == sorted(seen)
    assert seen[-1] == 2 * len(WORDS)


def test_the_key_changes_with_everything_that_counts(bundle: Bundle) -> None:
    manifest = bundle.manifest
    files = dict(manifest.files)
    other = files["text_encoder.onnx"].model_copy(update={"sha256": "0" * 64})
    changed: dict[str, Any] = {
        "text encoder": manifest.model_copy(
            update={"files": {**files, "text_encoder.onnx": other}}
        ),
        "tokenizer": manifest.model_copy(update={"files": {**files, "tokenizer.json": other}}),
        "external data": manifest.model_copy(update={"files": {**files, "text.data": other}}),
        "context": manifest.model_copy(
            update={"tokenizer": manifest.tokenizer.model_copy(update={"context_length": 8})}
        ),
    }
    keys = {name: text_features_key(m, "cpu fp32", TWO, WORDS) for name, m in changed.items()}
    keys["unchanged"] = text_features_key(manifest, "cpu fp32", TWO, WORDS)
    keys["precision"] = text_features_key(manifest, "cpu int8", TWO, WORDS)
    keys["templates"] = text_features_key(manifest, "cpu fp32", get_templates("name"), WORDS)
    keys["prompts"] = text_features_key(manifest, "cpu fp32", TWO, WORDS[:-1])
    keys["order"] = text_features_key(manifest, "cpu fp32", TWO, WORDS[::-1])
    keys["joined"] = text_features_key(
        manifest, "cpu fp32", TWO, [*WORDS[:-2], "".join(WORDS[-2:])]
    )
    assert len(set(keys.values())) == len(keys)


def test_the_key_leaves_out_what_has_no_part_in_text(bundle: Bundle) -> None:
    manifest = bundle.manifest
    other = manifest.files["README.md"].model_copy(update={"sha256": "0" * 64})
    for name in ("README.md", "image_encoder.onnx"):
        changed = manifest.model_copy(update={"files": {**manifest.files, name: other}})
        assert text_features_key(changed, "s", TWO, WORDS) == text_features_key(
            manifest, "s", TWO, WORDS
        )


def test_engines_do_not_share_what_they_cached(bundle: Bundle) -> None:
    fake = FakeBackend(bundle.manifest, colours=colour_tokens())
    colourless = FakeBackend(bundle.manifest)
    signatures = {
        OnnxBackend(bundle).text_signature,
        fake.text_signature,
        colourless.text_signature,
    }
    assert len(signatures) == 3


def test_errors_of_the_engine_are_not_cached(bundle: Bundle, tmp_path: Path) -> None:
    backend = OnnxBackend(bundle)
    backend.close()
    cache = TextFeatureCache(tmp_path / "cache")
    with pytest.raises(InferenceError):
        features_of(bundle, backend, cache).classes(WORDS, TWO)
    assert not cache.folder.exists()
