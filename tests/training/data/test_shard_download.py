from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest
from robustzs_training.data.shards.download import ShardCache
from robustzs_training.data.webdataset import open_webdataset
from robustzs_training.recipe import DataPart

from robustzs.errors import DataError, DatasetNotFoundError, ShardError
from tests.training.data.shard_files import image_bytes, write_captioned, write_shard
from tests.training.data.shard_server import Handler, ShardServer, make_certificate


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ShardServer]:
    """Plain http, which this machine may ask itself for."""
    (tmp_path / "www").mkdir()
    with ShardServer(tmp_path / "www") as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> ShardCache:
    return ShardCache(folder=tmp_path / "cache", pause_s=0.01)


def put(server: ShardServer, name: str, size: int = 100_000) -> bytes:
    data = os.urandom(size)
    (server.folder / name).write_bytes(data)
    return data


def left_over(cache: ShardCache) -> set[str]:
    return {path.suffix for path in cache.folder.iterdir()} - {".lock"}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")
def test_shards_come_over_https_and_are_read_without_the_server_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_captioned(tmp_path / "www", n_shards=2, per_shard=3)
    certificate = make_certificate(tmp_path)
    with ShardServer(folder, certificate=certificate) as server:
        part = DataPart(source="webdataset", path=server.url + "/train-{0000..0001}.tar")
        with pytest.raises(ShardError, match=r"is not trusted.*SSL_CERT_FILE"):
            open_webdataset(part, cache=tmp_path / "cache")
        assert server.requests == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        source = open_webdataset(part, cache=tmp_path / "cache")
        assert sorted(name for name, _ in server.requests) == ["train-0000.tar", "train-0001.tar"]
    local = open_webdataset(
        DataPart(source="webdataset", path=str(folder)), cache=tmp_path / "other"
    )
    assert source.digest == local.digest
    assert [source.read(i).caption for i in range(6)] == [local.read(i).caption for i in range(6)]
    assert source.read(4).key == "train-0001.tar/00001"
    assert len(open_webdataset(part, cache=tmp_path / "cache")) == 6  # the server is gone


def test_the_class_file_comes_from_beside_the_shards(tmp_path: Path, server: ShardServer) -> None:
    write_shard(server.folder / "a.tar", [{"__key__": "x", "png": image_bytes(1), "cls": b"1"}])
    part = DataPart(source="webdataset", path=f"{server.url}/a.tar")
    with pytest.raises(DataError, match="no file says which classes"):
        open_webdataset(part, cache=tmp_path / "cache")
    (server.folder / "classes.json").write_text('["ant", "bee"]')
    source = open_webdataset(part, cache=tmp_path / "cache")
    assert source.labels is not None
    assert source.labels.names[source.read(0).label or 0] == "bee"


def test_a_file_comes_once_and_whole(server: ShardServer, cache: ShardCache) -> None:
    data = put(server, "a.tar")
    path, sha256 = cache.fetch(f"{server.url}/a.tar")
    assert path.read_bytes() == data
    assert sha256 == hashlib.sha256(data).hexdigest()
    assert cache.fetch(f"{server.url}/a.tar") == (path, sha256)
    assert len(server.requests) == 1
    assert left_over(cache) == {".tar", ".record"}


def test_a_broken_transfer_goes_on_where_it_ended(server: ShardServer, cache: ShardCache) -> None:
    data = put(server, "a.tar")

    def hang_up(handler: Handler, content: bytes, count: int) -> bool:
        if count > 1:
            return False
        headers = {"ETag": server.tag}
        handler.answer(200, content[:70_000], headers, promised=len(content))
        return True

    server.faults["a.tar"] = hang_up
    assert cache.fetch(f"{server.url}/a.tar")[0].read_bytes() == data
    first, second = (wanted for _, wanted in server.requests)
    assert first is None
    assert second is not None
    assert 0 < int(second.removeprefix("bytes=").rstrip("-")) <= 70_000
    assert left_over(cache) == {".tar", ".record"}


def test_a_file_that_changed_in_between_comes_anew(server: ShardServer, cache: ShardCache) -> None:
    old = put(server, "a.tar")
    new = os.urandom(90_000)

    def change(handler: Handler, content: bytes, count: int) -> bool:
        if count > 1:
            return False
        handler.answer(200, content[:50_000], {"ETag": '"version-0"'}, promised=len(content))
        (server.folder / "a.tar").write_bytes(new)
        return True

    server.faults["a.tar"] = change
    assert cache.fetch(f"{server.url}/a.tar")[0].read_bytes() == new != old


def test_a_transfer_of_a_killed_process_is_gone_on_with(
    server: ShardServer, cache: ShardCache
) -> None:
    data = put(server, "a.tar")
    server.faults["a.tar"] = lambda handler, content, _: (
        handler.answer(200, content[:60_000], {"ETag": server.tag}, promised=len(content)) or True
    )
    with pytest.raises(ShardError, match="could not be fetched in 5 attempts"):
        cache.fetch(f"{server.url}/a.tar")
    assert left_over(cache) == {".part", ".etag"}
    server.faults.clear()
    server.requests.clear()
    assert cache.fetch(f"{server.url}/a.tar")[0].read_bytes() == data
    assert server.requests[0][1] is not None


def test_always_cut_off_without_a_version_leaves_nothing(
    server: ShardServer, cache: ShardCache
) -> None:
    put(server, "a.tar")
    server.faults["a.tar"] = lambda handler, content, _: (
        handler.answer(200, content[:60_000], promised=len(content)) or True
    )
    with pytest.raises(ShardError, match=r"a\.tar' could not be fetched in 5 attempts"):
        cache.fetch(f"{server.url}/a.tar")
    assert len(server.requests) == 5
    assert left_over(cache) == set()


def test_a_busy_server_is_asked_again_and_given_the_time_it_asks_for(
    server: ShardServer, cache: ShardCache
) -> None:
    data = put(server, "a.tar")

    def busy(handler: Handler, _: bytes, count: int) -> bool:
        if count > 2:
            return False
        handler.answer(503, b"busy", {"Retry-After": "1" if count == 1 else "soon"})
        return True

    server.faults["a.tar"] = busy
    start = time.monotonic()
    assert cache.fetch(f"{server.url}/a.tar")[0].read_bytes() == data
    assert time.monotonic() - start >= 1.0


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (404, DatasetNotFoundError),
        (403, DatasetNotFoundError),
        (400, ShardError),
        (501, ShardError),
    ],
)
def test_a_refusal_is_final(
    server: ShardServer, cache: ShardCache, status: int, error: type[Exception]
) -> None:
    put(server, "a.tar")
    server.faults["a.tar"] = lambda handler, *_: handler.answer(status, b"") or True
    with pytest.raises(error, match=str(status)):
        cache.fetch(f"{server.url}/a.tar?signature=secret")
    assert len(server.requests) == 1
    try:
        cache.fetch(f"{server.url}/a.tar?signature=secret")
    except (ShardError, DatasetNotFoundError) as caught:
        assert "secret" not in str(caught)  # noqa: PT017 - any of the two errors


@pytest.mark.parametrize("target", ["http://example.org/a.tar", "ftp://127.0.0.1/a.tar"])
def test_redirects_do_not_leave_what_is_allowed(
    server: ShardServer, cache: ShardCache, target: str
) -> None:
    put(server, "a.tar")
    server.faults["a.tar"] = lambda handler, *_: (
        handler.answer(302, b"", {"Location": target}) or True
    )
    with pytest.raises(ShardError):
        cache.fetch(f"{server.url}/a.tar")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")
def test_https_is_never_left_by_a_redirect(
    tmp_path: Path, server: ShardServer, cache: ShardCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(server, "a.tar")
    certificate = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    with ShardServer(server.folder, certificate=certificate) as safe:
        safe.faults["a.tar"] = lambda handler, *_: (
            handler.answer(302, b"", {"Location": f"{server.url}/a.tar"}) or True
        )
        with pytest.raises(ShardError, match="redirects to 'http:"):
            cache.fetch(f"{safe.url}/a.tar")
    assert server.requests == []


def test_redirects_within_the_rules_are_followed_but_not_for_ever(
    server: ShardServer, cache: ShardCache
) -> None:
    data = put(server, "b.tar")
    put(server, "a.tar")
    server.faults["a.tar"] = lambda handler, *_: (
        handler.answer(302, b"", {"Location": "/b.tar"}) or True
    )
    assert cache.fetch(f"{server.url}/a.tar")[0].read_bytes() == data
    server.faults["b.tar"] = lambda handler, *_: (
        handler.answer(302, b"", {"Location": "/b.tar"}) or True
    )
    with pytest.raises(ShardError, match="redirects without end"):
        cache.fetch(f"{server.url}/b.tar")


def test_an_encoded_answer_is_refused(server: ShardServer, cache: ShardCache) -> None:
    put(server, "a.tar")
    server.faults["a.tar"] = lambda handler, content, _: (
        handler.answer(200, content, {"Content-Encoding": "gzip"}) or True
    )
    with pytest.raises(ShardError, match="another encoding"):
        cache.fetch(f"{server.url}/a.tar")


def test_too_large_is_refused_before_it_comes(tmp_path: Path, server: ShardServer) -> None:
    put(server, "a.tar", 50_000)
    cache = ShardCache(folder=tmp_path / "cache", max_file_bytes=49_999)
    with pytest.raises(ShardError, match="has 50000 bytes, the limit is 49999"):
        cache.fetch(f"{server.url}/a.tar")
    cache = ShardCache(folder=tmp_path / "cache", max_bytes=49_999)
    with pytest.raises(ShardError, match="the whole cache may have 49999"):
        cache.fetch(f"{server.url}/a.tar")


def test_without_a_length_the_limit_holds_too(tmp_path: Path, server: ShardServer) -> None:
    data = put(server, "a.tar", 50_000)

    def endless(handler: Handler, content: bytes, _: int) -> bool:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(content)
        handler.close_connection = True
        return True

    server.faults["a.tar"] = endless
    allowed = ShardCache(folder=tmp_path / "one")
    assert allowed.fetch(f"{server.url}/a.tar")[0].read_bytes() == data
    with pytest.raises(ShardError, match="the limit is 49999"):
        ShardCache(folder=tmp_path / "two", max_file_bytes=49_999).fetch(f"{server.url}/a.tar")


def test_the_cache_forgets_what_was_used_longest_ago(tmp_path: Path, server: ShardServer) -> None:
    cache = ShardCache(folder=tmp_path / "cache", max_bytes=250_000)
    for name in ("a", "b"):
        put(server, f"{name}.tar", 100_000)
    put(server, "c.tar", 100_000)
    place = {name: cache.fetch(f"{server.url}/{name}.tar")[0] for name in ("a", "b")}
    os.utime(place["a"], ns=(1, 1))
    os.utime(place["b"], ns=(2, 2))
    cache.fetch(f"{server.url}/a.tar")  # used again
    place["c"] = cache.fetch(f"{server.url}/c.tar")[0]
    assert [name for name, path in place.items() if path.exists()] == ["a", "c"]
    assert sum(path.stat().st_size for path in cache.folder.glob("*.tar")) <= 250_000


def test_a_source_larger_than_its_cache_is_read_all_the_same(
    tmp_path: Path, server: ShardServer
) -> None:
    write_captioned(server.folder, n_shards=4, per_shard=3)
    size = max(path.stat().st_size for path in server.folder.iterdir())
    source = open_webdataset(
        DataPart(source="webdataset", path=server.url + "/train-{0000..0003}.tar"),
        cache=tmp_path / "cache",
        max_cache_bytes=2 * size,
    )
    for shard in (3, 0, 1, 2, 0):
        assert source.read(3 * shard + 1).caption == f"picture 1 of shard {shard}"
        held = sum(path.stat().st_size for path in (tmp_path / "cache" / "shards").glob("*.tar"))
        assert held <= 2 * size


def test_another_content_later_is_not_what_the_run_began_with(
    tmp_path: Path, server: ShardServer
) -> None:
    write_captioned(server.folder, n_shards=1)
    part = DataPart(source="webdataset", path=f"{server.url}/train-0000.tar")
    source = open_webdataset(part, cache=tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache" / "shards")
    write_shard(server.folder / "train-0000.tar", [{"__key__": "x", "png": image_bytes(5)}])
    with pytest.raises(ShardError, match="not what it was when the run began"):
        source.read(0)


def fetch(cache: ShardCache, url: str) -> str:
    return cache.fetch(url)[1]


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_many_at_once_fetch_once(server: ShardServer, cache: ShardCache, kind: str) -> None:
    data = put(server, "a.tar", 400_000)

    def slow(_: Handler, __: bytes, ___: int) -> bool:
        time.sleep(0.2)
        return False

    server.faults["a.tar"] = slow
    pool = (
        ThreadPoolExecutor(6)
        if kind == "threads"
        else ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("fork"))
    )
    with pool:
        jobs = [pool.submit(fetch, cache, f"{server.url}/a.tar") for _ in range(6)]
        assert {job.result() for job in jobs} == {hashlib.sha256(data).hexdigest()}
    assert len(server.requests) == 1


def test_a_killed_process_leaves_the_file_to_the_next(
    server: ShardServer, cache: ShardCache
) -> None:
    data = put(server, "a.tar", 200_000)
    half_sent = threading.Event()

    def stall(handler: Handler, content: bytes, count: int) -> bool:
        if count > 1:
            return False
        handler.answer(200, content[:120_000], {"ETag": server.tag}, promised=len(content))
        half_sent.set()
        killed.wait(30)
        return True

    killed = threading.Event()
    server.faults["a.tar"] = stall
    url = f"{server.url}/a.tar"
    process = multiprocessing.get_context("fork").Process(target=fetch, args=(cache, url))
    process.start()
    assert half_sent.wait(30)
    while sum(path.stat().st_size for path in cache.folder.glob("*.part")) < 120_000:
        time.sleep(0.01)
    process.kill()
    process.join()
    killed.set()
    assert cache.fetch(url)[0].read_bytes() == data
    assert [wanted for _, wanted in server.requests] == [None, "bytes=120000-"]


def test_nobody_answers(cache: ShardCache, server: ShardServer) -> None:
    url = f"{server.url}/a.tar"
    server.server_close()
    with pytest.raises(ShardError, match="could not be fetched in 5 attempts"):
        cache.fetch(url)


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path, server: ShardServer) -> None:
    put(server, "a.tar")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ShardError, match="cannot be kept in"):
        ShardCache(folder=tmp_path / "file").fetch(f"{server.url}/a.tar")
