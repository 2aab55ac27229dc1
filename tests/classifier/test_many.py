"""Many images: order, errors, memory, threads, and independence of each other."""

from __future__ import annotations

import io
import itertools
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from robustzs import Answer, AnswerError, Classifier
from robustzs.classifier import Embedder
from robustzs.errors import (
    BackendInputError,
    ImageDecodeError,
    ImageFormatError,
    ImageSourceError,
    ImageTooLargeError,
    InferenceError,
    UsageError,
)
from robustzs.images.limits import ImageLimits
from robustzs.images.sources import ImageSource, iter_sources
from tests.factories import COLOURS, EMBED_DIM, LEAVES, picture, picture_bytes

Load = Callable[..., Classifier]
WORDS = sorted(COLOURS)


def pictures(n: int) -> list[bytes]:
    return [picture_bytes(WORDS[i % len(WORDS)], seed=i) for i in range(n)]


def without_name(answer: Answer | AnswerError) -> Any:
    assert isinstance(answer, Answer)
    return answer.model_copy(update={"image": ""})


@pytest.mark.parametrize("strategy", ["marginal", "topdown", "level"])
def test_an_answer_does_not_depend_on_its_batch(load: Load, strategy: str) -> None:
    classifier = load(strategy=strategy, temperature=3.0)
    images = pictures(13)
    alone = [without_name(classifier.classify(image)) for image in images]
    for batch_size in (1, 2, 3, 5, 13, 64):
        many = classifier.classify_many(images, batch_size=batch_size)
        assert [without_name(answer) for answer in many] == alone, batch_size


def test_a_bad_image_is_a_row_of_its_own(load: Load, tmp_path: Path) -> None:
    good = tmp_path / "good.png"
    good.write_bytes(picture_bytes("tabby"))
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    names = [str(good), str(tmp_path / "bad.png"), str(tmp_path / "missing.png"), str(good)]
    rows = list(load().classify_many(names, batch_size=2))
    assert [row.image for row in rows] == names
    assert [isinstance(row, AnswerError) for row in rows] == [False, True, True, False]
    assert rows[2].error.code == "image-source"  # type: ignore[union-attr]
    assert without_name(rows[0]) == without_name(rows[3])


def test_a_batch_of_bad_images_only(load: Load) -> None:
    rows = list(load().classify_many([b"no", b"image", picture_bytes("jeep")], batch_size=2))
    assert [isinstance(row, AnswerError) for row in rows] == [True, True, False]


def test_sources_go_straight_in(load: Load, tmp_path: Path) -> None:
    for leaf in LEAVES:
        (tmp_path / f"{leaf}.png").write_bytes(picture_bytes(leaf))
    rows = list(load().classify_many(iter_sources([tmp_path, tmp_path / "none"])))
    assert len(rows) == len(LEAVES) + 1
    for row in rows[:-1]:
        assert isinstance(row, Answer)
        assert row.prediction.id == Path(row.image).stem
    assert isinstance(rows[-1], AnswerError)


def test_no_images_no_rows(load: Load) -> None:
    assert list(load().classify_many([])) == []


class Weird:
    """Neither an image nor anything that could hold one."""


def test_mistakes_of_the_program_are_not_rows(load: Load) -> None:
    with pytest.raises(TypeError, match="cannot classify Weird"):
        list(load().classify_many([picture("jeep"), Weird()]))  # type: ignore[list-item]

    def broken() -> Iterator[bytes]:
        yield picture_bytes("jeep")
        raise RuntimeError("the caller's own")

    with pytest.raises(RuntimeError, match="the caller's own"):
        list(load().classify_many(broken()))


def test_a_failing_engine_is_not_a_row(load: Load) -> None:
    classifier = load()
    classifier.close()
    with pytest.raises(InferenceError, match="closed"):
        list(classifier.classify_many(pictures(2)))
    with pytest.raises(InferenceError, match="closed"):
        classifier.classify(picture("jeep"))


@pytest.mark.parametrize("batch_size", [0, -1, 4097, True, 1.5])
def test_batch_sizes_are_checked_at_once(load: Load, batch_size: Any) -> None:
    with pytest.raises(UsageError, match="batch_size must be from 1 to 4096"):
        load().classify_many([], batch_size=batch_size)


def test_endless_input_is_taken_a_little_at_a_time(load: Load) -> None:
    taken = itertools.count()
    data = picture_bytes("jeep")

    def endless() -> Iterator[bytes]:
        while True:
            next(taken)
            yield data

    rows = load().classify_many(endless(), batch_size=4)
    for _ in range(10):
        next(rows)
    rows.close()  # type: ignore[attr-defined]
    assert next(taken) <= 24
    assert not [t for t in threading.enumerate() if t.name.startswith("robustzs-decode")]


def test_memory_does_not_grow_with_the_number_of_images(load: Load) -> None:
    classifier = load()
    # its own copy for each image, as if each came from its own file
    data = picture_bytes("jeep", size=(400, 300), format="JPEG")

    def peak(n: int) -> int:
        images = (bytes(bytearray(data)) for _ in range(n))
        tracemalloc.start()
        try:
            for _ in classifier.classify_many(images, batch_size=2):
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(4)
    assert peak(80) < 1.5 * peak(8) + 100_000


def test_threads_share_a_classifier(load: Load) -> None:
    classifier = load(temperature=3.0)
    images = pictures(32)
    alone = [classifier.classify(image) for image in images]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(classifier.classify, images)) == alone
        streams = [pool.submit(lambda: list(classifier.classify_many(images))) for _ in range(4)]
        for stream in streams:
            assert stream.result() == alone


# ---- what may be classified --------------------------------------------------------------------


def test_all_ways_to_give_an_image_agree(load: Load, tmp_path: Path) -> None:
    data = picture_bytes("siamese")
    path = tmp_path / "x.png"
    path.write_bytes(data)
    classifier = load()
    with path.open("rb") as stream:
        answers = {
            "path": classifier.classify(path),
            "str": classifier.classify(str(path)),
            "bytes": classifier.classify(data),
            "bytearray": classifier.classify(bytearray(data)),
            "memoryview": classifier.classify(memoryview(data)),
            "file": classifier.classify(stream),
            "BytesIO": classifier.classify(io.BytesIO(data)),
            "source": classifier.classify(ImageSource(str(path))),
            "PIL": classifier.classify(picture("siamese")),
            "lazy PIL": classifier.classify(Image.open(path)),
            "array": classifier.classify(np.asarray(picture("siamese"))),
            "pixels": classifier.classify_pixels(classifier.preprocess(data)[None], ["pixels"])[0],
        }
    names = {how: answer.image for how, answer in answers.items()}
    assert names["path"] == names["str"] == names["file"] == names["source"] == str(path)
    assert (names["bytes"], names["array"], names["BytesIO"]) == ("bytes", "array", "BytesIO")
    first = without_name(answers["path"])
    for how, answer in answers.items():
        assert without_name(answer) == first, how


def test_a_pil_image_is_turned_as_its_exif_says(load: Load) -> None:
    # Left half red, right half blue; the orientation tag makes the left half the upper one.
    upright = Image.new("RGB", (40, 80), COLOURS_255["blue"])
    upright.paste(COLOURS_255["red"], (0, 0, 40, 40))
    lying = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    lying.save(buffer, "PNG", exif=exif)
    classifier = load()
    wanted = classifier.preprocess(upright)
    np.testing.assert_array_equal(classifier.preprocess(buffer.getvalue()), wanted)
    np.testing.assert_array_equal(classifier.preprocess(Image.open(buffer)), wanted)


COLOURS_255 = {word: tuple(int(255 * c) for c in colour) for word, colour in COLOURS.items()}


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((3, 8, 8), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((1, 8, 8, 3), np.uint8),
    ],
    ids=lambda array: f"{array.dtype}-{array.shape}",
)
def test_other_arrays_are_refused(load: Load, array: Any) -> None:
    with pytest.raises(ImageFormatError, match=r"uint8 \[H, W, 3\]"):
        load().classify(array)


def test_limits_hold_for_every_way_in(tiny_bundle: Path, tmp_path: Path) -> None:
    limits = ImageLimits(max_pixels=1000, max_bytes=100_000)
    embedder = Embedder.load(tiny_bundle, limits=limits)
    path = tmp_path / "x.png"
    path.write_bytes(picture_bytes("jeep"))
    ways: list[Any] = [path, picture_bytes("jeep"), picture("jeep"), np.asarray(picture("jeep"))]
    for image in ways:
        with pytest.raises(ImageTooLargeError, match="1000"):
            embedder.preprocess(image)
    with pytest.raises(ImageTooLargeError):
        embedder.preprocess(io.BytesIO(bytes(100_001)))


def test_files_that_cannot_be_read_are_image_errors(load: Load, tmp_path: Path) -> None:
    with pytest.raises(ImageSourceError, match="not bytes"):
        load().classify(io.StringIO("text"))  # type: ignore[arg-type]
    closed = io.BytesIO(b"")
    closed.close()
    with pytest.raises(ImageSourceError, match="cannot be read"):
        load().classify(closed)
    cut = tmp_path / "cut.png"
    cut.write_bytes(picture_bytes("jeep")[:300])
    with Image.open(cut) as lazy, pytest.raises(ImageDecodeError, match="cannot be loaded"):
        load().classify(lazy)


def test_a_dash_is_a_file_name_in_python(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-").write_bytes(picture_bytes("jeep"))
    assert load().classify("-").prediction.id == "jeep"


# ---- features ----------------------------------------------------------------------------------


def test_embeddings_are_raw_and_named(load: Load) -> None:
    classifier = load()
    images: list[Any] = [picture_bytes("jeep"), b"not an image", picture("tabby")]
    (_, first), (_, error), (name, last) = classifier.embed_images(images, batch_size=2)
    assert isinstance(error, AnswerError)
    assert isinstance(first, np.ndarray)
    assert isinstance(last, np.ndarray)
    assert name == "Image"
    assert first.shape == last.shape == (EMBED_DIM,)
    assert classifier.classify(images[0]) == classifier.classify_features(first[None], ["bytes"])[0]
    texts = classifier.embed_texts(["a photo of a jeep.", "a photo of a tabby."])
    assert texts.shape == (2, EMBED_DIM)
    cosine = texts @ first / np.linalg.norm(texts, axis=1) / np.linalg.norm(first)
    assert cosine[0] > cosine[1]
    with pytest.raises(UsageError, match="no texts"):
        classifier.embed_texts([])


def test_wrong_pixels_and_names_are_refused(load: Load) -> None:
    classifier = load()
    pixels = classifier.preprocess(picture("jeep"))
    with pytest.raises(BackendInputError):
        classifier.classify_pixels(pixels, ["x"])
    with pytest.raises(UsageError, match="1 images and 2 names"):
        classifier.classify_pixels(pixels[None], ["x", "y"])


def test_context_managers_close(tiny_bundle: Path, load: Load) -> None:
    with load() as classifier:
        classifier.classify(picture("jeep"))
    with pytest.raises(InferenceError):
        classifier.classify(picture("jeep"))
    with Embedder.load(tiny_bundle) as embedder:
        embedder.embed_texts(["dog"])
    with pytest.raises(InferenceError):
        embedder.embed_texts(["dog"])
