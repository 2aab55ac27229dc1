"""Many images: cut by number and bytes, sent side by side, answered in order."""

from __future__ import annotations

import asyncio
import io
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import robustzs_client as sdk
from hypothesis import given
from hypothesis import strategies as st
from robustzs_client import AnswerError, AsyncClient, Batching, Client, NamedImage, Retries
from robustzs_client._batches import Batches
from robustzs_client._images import SUFFIXES, walk_folder

from robustzs.images.sources import SUFFIXES as CORE_SUFFIXES
from robustzs.images.sources import iter_sources
from tests.privileges import without_file_powers
from tests.sdk.scripted import Asked, Either, Says, Scripted, echo, names


def _numbered(n: int) -> list[bytes]:
    return [b"%03d" % number for number in range(n)]


@given(
    st.lists(st.integers(0, 50), max_size=60),
    st.integers(1, 9),
    st.integers(1, 100),
    st.sets(st.integers(0, 59)),
)
def test_batches_hold_everything_once_in_order_and_within_bounds(
    sizes: list[int], max_images: int, max_bytes: int, broken: set[int]
) -> None:
    items: list[NamedImage | AnswerError] = [
        AnswerError.model_validate({"image": str(n), "error": {"code": "c", "message": ""}})
        if n in broken
        else NamedImage(str(n), b"x" * size)
        for n, size in enumerate(sizes)
    ]
    told: list[tuple[int, int | None]] = []
    batches = Batches(
        items,
        Batching(max_images=max_images, max_bytes=max_bytes),
        lambda done, total: told.append((done, total)),
    )
    seen: list[object] = []
    while (batch := batches.next()) is not None:
        assert 1 <= len(batch.rows) <= max_images
        total = sum(len(image.data) for image in batch.images)
        assert total <= max_bytes or len(batch.images) == 1
        seen += batch.merged([image.name for image in batch.images])
    expected = [i if isinstance(i, AnswerError) else i.name for i in items]
    assert seen == expected
    for _ in seen:
        batches.count()
    assert told == [(n, len(items)) for n in range(1, len(items) + 1)]


def test_order_is_kept_though_the_first_requests_take_longest(
    call: Either, server: Scripted
) -> None:
    def slow_first(asked: Asked) -> Says:
        says = echo(asked)
        says.seconds = 0.4 if asked.images[0] < b"008" else 0.0
        return says

    server.answer = slow_first
    rows = call(
        server.url,
        "classify_many",
        _numbered(50),
        made={"batching": Batching(max_images=4, concurrency=3)},
    )
    assert names(rows) == [f"{n:03}" for n in range(50)]
    assert [row.image for row in rows] == ["bytes"] * 50
    assert len(server.asked) == 13
    assert 2 <= server.most_at_once <= 3


def test_bytes_bound_a_request_and_one_large_image_goes_alone(
    call: Either, server: Scripted
) -> None:
    server.answer = echo
    images = [b"a" * 40, b"b" * 70, b"c" * 500, b"d" * 10, b"e" * 10]
    call(server.url, "classify_many", images, made={"batching": Batching(max_bytes=100)})
    sent = sorted((asked.images for asked in server.asked), key=lambda images: images[0])
    assert sent == [[images[0]], [images[1]], [images[2]], images[3:]]


def test_bad_images_fail_alone_wherever_they_are(call: Either, server: Scripted) -> None:
    server.answer = echo
    images = [b"bad", b"a", b"missing", b"b", b"bad"]
    given: list[Any] = [*images]
    given[2] = "/no/such/file.png"
    rows = call(server.url, "classify_many", given, made={"batching": Batching(max_images=2)})
    assert names(rows) == ["image-format", "a", "image-source", "b", "image-format"]
    assert rows[2].image == "/no/such/file.png"
    assert rows[4].error.message == "it is image-format"  # it was alone, so it came as an envelope


def test_names_of_the_callers_come_back(call: Either, server: Scripted) -> None:
    server.answer = echo
    given = [b"a", io.BytesIO(b"bad"), "/no/such/file.png"]
    rows = call(server.url, "classify_many", given, names=["one", "two", "three"])
    assert [row.image for row in rows] == ["one", "two", "three"]
    with pytest.raises(ValueError, match="shorter"):
        call(server.url, "classify_many", given, names=["one"])


def test_no_image_is_no_request(call: Either, server: Scripted) -> None:
    assert call(server.url, "classify_many", []) == []
    assert call(server.url, "classify_many", ["/no/such/file.png"])[0].error.code == "image-source"
    assert call(server.url, "embed_images", []) == []
    assert call(server.url, "embed_texts", []) == []
    assert server.asked == []


def test_an_error_of_the_request_ends_all(call: Either, server: Scripted) -> None:
    server.says(Says(422, {"error": {"code": "label", "message": "no"}}))
    with pytest.raises(sdk.LabelsRejectedError):
        call(server.url, "classify_many", _numbered(40), labels=[""])
    assert len(server.asked) <= 3


def test_options_become_fields(call: Either, server: Scripted) -> None:
    server.answer = echo
    tree = {"name": "t", "nodes": [{"id": "a"}]}
    call(
        server.url,
        "classify",
        b"x",
        labels=("cat", {"name": "dog", "aliases": ("hound",)}),
        hierarchy=["flat", tree],
        templates="a {} of",
        theta=0.25,
        top_k=3,
        reject=True,
        level="family",
        model=None,
    )
    assert server.asked[0].fields == {
        "labels": '["cat", {"name": "dog", "aliases": ["hound"]}]',
        "hierarchy": '["flat", {"name": "t", "nodes": [{"id": "a"}]}]',
        "templates": "a {} of",
        "theta": "0.25",
        "top_k": "3",
        "reject": "true",
        "level": "family",
    }
    for method in ("classify", "classify_many", "classify_stream"):
        with pytest.raises(TypeError, match="'thetta'"):
            call(server.url, method, [b"x"] if method != "classify" else b"x", thetta=0.5)
    assert len(server.asked) == 1


# --- folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a.JPG", "notes.txt", "below/c.webp", "below/deep/d.gif", "z.tiff"):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(Path(name).stem.encode())
    (tmp_path / "pictures" / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "pictures" / "loop").symlink_to(tmp_path / "pictures")
    (tmp_path / "pictures" / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pictures" / "pipe.png")
    return tmp_path / "pictures"


def test_a_folder_is_walked_as_the_command_walks_it(folder: Path) -> None:
    assert SUFFIXES == CORE_SUFFIXES
    here = [
        item.name if isinstance(item, NamedImage) else item.image for item in walk_folder(folder)
    ]
    assert here == [source.name for source in iter_sources([folder])]


def test_a_folder_comes_in_order_with_progress(
    call: Either, server: Scripted, folder: Path
) -> None:
    server.answer = echo
    told: list[tuple[int, int | None]] = []
    rows = call(
        server.url,
        "classify_folder",
        folder,
        progress=lambda done, total: told.append((done, total)),
        made={"batching": Batching(max_images=2)},
    )
    found = dict(
        zip((os.path.relpath(row.image, folder) for row in rows), names(rows), strict=True)
    )
    assert found == {
        "a.JPG": "a",
        "b.png": "b",
        "gone.png": "image-source",
        "pipe.png": "image-source",
        "z.tiff": "z",
        "below/c.webp": "c",
        "below/deep/d.gif": "d",
    }
    assert [done for done, _ in told] == list(range(1, 8))
    assert told[-1] == (7, 7)
    assert {total for _, total in told} <= {None, 7}


def test_what_is_no_folder_is_told_at_once(server: Scripted, tmp_path: Path) -> None:
    with Client(server.url) as client, pytest.raises(NotADirectoryError):
        client.classify_folder(tmp_path / "nothing")
    with pytest.raises(NotADirectoryError):
        AsyncClient(server.url).classify_folder(tmp_path / "nothing")


def test_a_closed_folder_is_a_row(folder: Path) -> None:
    (folder / "below").chmod(0)
    try:
        with without_file_powers():
            rows = [row for row in walk_folder(folder) if isinstance(row, AnswerError)]
    finally:
        (folder / "below").chmod(0o755)
    assert any("below" in row.error.message for row in rows)


def test_a_stream_reads_only_a_few_batches_ahead(call: Either, server: Scripted) -> None:
    server.answer = echo
    read = 0
    ahead: list[int] = []

    def endless() -> Iterator[bytes]:
        nonlocal read
        while read < 400:
            read += 1
            yield b"%03d" % read

    rows = call(
        server.url,
        "classify_stream",
        endless(),
        progress=lambda done, total: ahead.append(read - done),
        made={"batching": Batching(max_images=5, concurrency=2)},
    )
    assert len(rows) == 400
    assert max(ahead) <= 5 * (2 + 1) + 1


def test_a_stream_that_is_left_leaves_no_threads(server: Scripted) -> None:
    server.answer = echo
    before = threading.active_count()
    with Client(server.url, batching=Batching(max_images=1)) as client:
        rows = client.classify_stream(_numbered(50))
        next(rows)
        rows.close()  # type: ignore[attr-defined]
        asked = len(server.asked)
        time.sleep(0.2)
        assert len(server.asked) <= asked + 4

    async def left() -> int:
        async with AsyncClient(server.url, batching=Batching(max_images=1)) as client:
            rows = client.classify_stream(_numbered(50))
            await anext(aiter(rows))
            await rows.aclose()  # type: ignore[attr-defined]
            return len(asyncio.all_tasks())

    assert asyncio.run(left()) == 1
    names_left = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names_left if name.startswith("robustzs-client")], before


def test_a_client_is_shared_by_threads(server: Scripted) -> None:
    server.answer = echo

    def work(client: Client, word: bytes) -> set[str]:
        return {client.classify(word).flat_top1.name for _ in range(10)}

    words = [b"w%d" % number for number in range(6)]
    with Client(server.url, retries=Retries(attempts=1)) as client, ThreadPoolExecutor(6) as pool:
        found = [*pool.map(partial(work, client), words)]
    assert found == [{word.decode()} for word in words]


# --- features and what is stored


def test_features_come_in_order_exact_and_apart(call: Either, server: Scripted) -> None:
    import base64

    import numpy as np

    def embed(asked: Asked) -> Says:
        rows: dict[str, list[dict[str, Any]]] = {"image": [], "text": []}
        for name, content in asked.parts:
            if name in rows:
                numbers = np.array([len(content), 0.1], "<f4").tobytes()
                row = {"index": 0, "status": "ok", "embedding": base64.b64encode(numbers).decode()}
                if content == b"bad":
                    row = {"status": "error", "error": {"code": "image-decode", "message": "m"}}
                rows[name].append(row)
        model = {"name": "m", "digest": "0" * 64}
        body = {"model": model, "dim": 2, "images": rows["image"], "texts": rows["text"]}
        return Says(200, {**body, "encoding": "base64", "request_id": "r"})

    server.answer = embed
    rows = call(server.url, "embed_images", [b"1", b"22", b"bad", "/missing"])
    assert [row.embedding for row in rows[:2]] == [(n, float(np.float32(0.1))) for n in (1, 2)]
    assert names(rows[2:]) == ["image-decode", "image-source"]
    texts = [f"{n}é" for n in range(300)]
    found = call(server.url, "embed_texts", texts)
    assert [row.name for row in found] == texts
    assert [row.embedding[0] for row in found] == [len(text.encode()) for text in texts]
    assert len(server.asked) == 4
    with pytest.raises(TypeError, match="list of texts"):
        call(server.url, "embed_texts", "one text")


INFO = {
    "id": "pets",
    "etag": '"' + "a" * 32 + '"',
    "bytes": 10,
    "created_at": "2026-01-01T00:00:00+00:00",
    "modified_at": "2026-01-02T00:00:00+00:00",
}


@pytest.mark.parametrize("kind", ["label_set", "hierarchy"])
def test_things_are_kept_under_ids(call: Either, server: Scripted, kind: str) -> None:
    path = {"label_set": "/v1/label-sets", "hierarchy": "/v1/hierarchies"}[kind]
    several = {"label_set": "label_sets", "hierarchy": "hierarchies"}[kind]
    server.says(Says(201, INFO, {"ETag": INFO["etag"]}))  # type: ignore[dict-item]
    kept = call(server.url, f"put_{kind}", "pets", ["cat"], create=True)
    assert (kept.id, kept.etag, kept.created_at.year) == ("pets", INFO["etag"], 2026)
    call(server.url, f"put_{kind}", "pets", ["cat"], if_match=kept.etag)
    server.says(Says(204))
    assert call(server.url, f"delete_{kind}", "pets", if_match=kept.etag) is None
    server.says(Says(200, {"labels": ["cat"]}, {"ETag": INFO["etag"]}))  # type: ignore[dict-item]
    found = call(server.url, f"get_{kind}", "pets")
    assert (found.document, found.etag) == ({"labels": ["cat"]}, INFO["etag"])
    first = Says(200, {"items": [INFO], "next_after": "pets"})
    server.says(first, Says(200, {"items": [{**INFO, "id": "toys"}], "next_after": None}))
    assert [item.id for item in call(server.url, f"list_{several}")] == ["pets", "toys"]
    asked = [(one.method, one.path.partition("?")[0]) for one in server.asked]
    one = f"{path}/pets"
    assert asked == [
        ("PUT", one), ("PUT", one), ("DELETE", one), ("GET", one), ("GET", path), ("GET", path)
    ]  # fmt: skip
    assert server.asked[0].headers["if-none-match"] == "*"
    assert server.asked[1].headers["if-match"] == kept.etag
    assert server.asked[2].headers["if-match"] == kept.etag
    assert "after=pets" in server.asked[5].path


@pytest.mark.parametrize("wrong", ["", "../models", "A", "a/b", "x" * 65, "a b"])
def test_an_id_that_could_be_a_path_is_not_sent(call: Either, server: Scripted, wrong: str) -> None:
    for method in ("get_label_set", "delete_hierarchy"):
        with pytest.raises(ValueError, match="an id is"):
            call(server.url, method, wrong)
    assert server.asked == []
