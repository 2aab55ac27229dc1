from __future__ import annotations

import logging
import multiprocessing
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustzs import features, settings
from robustzs.errors import UsageError
from robustzs.features import TextFeatureCache


@pytest.fixture(autouse=True)
def _forget_warnings() -> Iterator[None]:
    features._warned.clear()
    yield
    features._warned.clear()


@pytest.fixture
def cache(tmp_path: Path) -> TextFeatureCache:
    return TextFeatureCache(tmp_path / "cache")


def some_array(n: int = 5, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((n, 16)).astype(np.float32)


def file_of(array: Any) -> bytes:
    return b"".join(features._pieces(array))


def test_what_was_put_comes_back_read_only(cache: TextFeatureCache) -> None:
    array = some_array()
    assert cache.get("k", array.shape) is None
    cache.put("k", array)
    got = cache.get("k", array.shape)
    assert got is not None
    np.testing.assert_array_equal(got, array)
    assert got.dtype == np.float32
    assert not got.flags.writeable
    cache.put("k", array + 1)  # the old mapping stays whole
    np.testing.assert_array_equal(got, array)


def test_files_are_plain_npy_of_their_user_alone(cache: TextFeatureCache) -> None:
    previous = os.umask(0)
    try:
        cache.put("k", some_array())
    finally:
        os.umask(previous)
    (path,) = cache.folder.iterdir()
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    np.testing.assert_array_equal(np.load(path, allow_pickle=False), some_array())


def test_every_flipped_byte_and_every_cut_is_found(
    cache: TextFeatureCache, caplog: pytest.LogCaptureFixture
) -> None:
    array = some_array(2)
    cache.put("k", array)
    (path,) = cache.folder.iterdir()
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x40]) + whole[position + 1 :])
        assert cache.get("k", array.shape) is None, position
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert cache.get("k", array.shape) is None, length
    path.write_bytes(whole + b"\0")
    assert cache.get("k", array.shape) is None
    assert "damaged and computed again" in caplog.text
    cache.put("k", array)
    np.testing.assert_array_equal(cache.get("k", array.shape), array)


def test_another_shape_or_dtype_is_not_taken(cache: TextFeatureCache) -> None:
    cache.put("k", some_array(4))
    assert cache.get("k", (5, 16)) is None
    assert cache.get("k", (4, 8)) is None
    path = cache.folder / "k.npy"
    path.write_bytes(file_of(some_array(4)).replace(b"<f4", b"<i4"))
    assert cache.get("k", (4, 16)) is None


def test_pickles_are_not_read(cache: TextFeatureCache) -> None:
    cache.put("k", some_array())
    np.save(cache.folder / "k.npy", np.asarray([{}], object), allow_pickle=True)
    assert cache.get("k", (5, 16)) is None


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    size = len(file_of(some_array()))
    cache = TextFeatureCache(tmp_path / "cache", max_bytes=3 * size)
    for number, key in enumerate("abc"):
        cache.put(key, some_array())
        os.utime(cache.folder / f"{key}.npy", (1000 + number, 1000 + number))
    assert cache.get("a", (5, 16)) is not None  # now b is the oldest
    cache.put("d", some_array())
    assert sorted(path.stem for path in cache.folder.iterdir()) == ["a", "c", "d"]


def test_there_are_never_too_many_files_and_the_folder_is_not_searched_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robustzs.features._MAX_FILES", 50)
    searched = 0

    class Watched(TextFeatureCache):
        def _evict(self, keep: Path) -> None:
            nonlocal searched
            searched += 1
            super()._evict(keep)

    cache = Watched(tmp_path / "cache")
    for number in range(600):
        cache.put(f"key{number}", some_array())
    assert searched == 3
    assert len(list(cache.folder.iterdir())) < 50 + 256


def test_what_is_larger_than_the_cache_is_not_kept(tmp_path: Path) -> None:
    cache = TextFeatureCache(tmp_path / "cache", max_bytes=100)
    cache.put("a", some_array())
    assert not cache.folder.exists()
    assert TextFeatureCache(tmp_path / "cache", max_bytes=0).get("a", (5, 16)) is None


def test_leftovers_of_dead_processes_go(cache: TextFeatureCache) -> None:
    cache.put("a", some_array())
    old, young = cache.folder / ".tmp-old", cache.folder / ".tmp-young"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    TextFeatureCache(cache.folder).put("b", some_array())  # the next process
    assert not old.exists()
    assert young.exists()


@pytest.mark.skipif(os.name != "posix", reason="POSIX modes")
def test_a_folder_that_others_write_to_is_not_trusted(
    cache: TextFeatureCache, caplog: pytest.LogCaptureFixture
) -> None:
    cache.put("k", some_array())
    cache.folder.chmod(0o777)
    assert cache.get("k", (5, 16)) is None
    cache.put("l", some_array())
    assert not (cache.folder / "l.npy").exists()
    assert len(caplog.records) == 1
    assert "other users can write" in caplog.text


def test_an_unwritable_cache_warns_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("")
    cache = TextFeatureCache(blocked / "cache")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert cache.get("k", (5, 16)) is None
            cache.put("k", some_array())
    assert len(caplog.records) == 1
    assert "cannot be cached" in caplog.text


def _put_and_get(folder: Path, worker: int) -> int:
    cache = TextFeatureCache(folder)
    wrong = 0
    for turn in range(40):
        cache.put("same", some_array(200))
        got = cache.get("same", (200, 16))
        wrong += got is None or not np.array_equal(got, some_array(200))
        cache.put(f"own {worker} {turn}", some_array())
    return wrong


def test_processes_share_a_cache(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        wrong = pool.starmap(_put_and_get, [(tmp_path / "cache", n) for n in range(3)])
    assert wrong == [0, 0, 0]
    assert len(list((tmp_path / "cache").iterdir())) == 121


def test_the_size_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert TextFeatureCache().max_bytes == settings.DEFAULT_CACHE_MAX_BYTES
    monkeypatch.setenv("ROBUSTZS_CACHE_MAX_BYTES", "12345")
    assert TextFeatureCache().max_bytes == 12345
    for wrong in ("-1", "1e9", "lots", "1.5"):
        monkeypatch.setenv("ROBUSTZS_CACHE_MAX_BYTES", wrong)
        with pytest.raises(UsageError, match="not a number of bytes"):
            TextFeatureCache()
