from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from robustzs_training.data.shards.names import find_shards
from robustzs_training.data.shards.source import ShardSource
from robustzs_training.data.webdataset import open_webdataset
from robustzs_training.recipe import DataPart

from robustzs.errors import DataError, DatasetNotFoundError, ImageError, ShardError
from tests.training.data.shard_files import image_bytes, write_captioned, write_shard


def open_shards(path: str | Path, cache: Path, **options: Any) -> ShardSource:
    return open_webdataset(DataPart(source="webdataset", path=str(path), **options), cache=cache)


# Damage


def test_a_shard_cut_anywhere_is_refused_by_name_and_byte(tmp_path: Path) -> None:
    folder = write_captioned(tmp_path / "shards", n_shards=2, per_shard=3)
    shard = folder / "train-0001.tar"
    whole = shard.read_bytes()
    with tarfile.open(shard) as tar:
        end = tar.getmembers()[-1].offset_data + 512
    for size in (0, 1, 511, 512, 700, 1024, 1536, end // 2, end - 512, end - 1, end):
        shard.write_bytes(whole[:size])
        with pytest.raises(ShardError, match=r"'train-0001\.tar'.* byte \d+"):
            open_shards(folder, tmp_path / "cache")
    shard.write_bytes(whole[: end + 512])  # a single closing block, as some writers leave it
    assert len(open_shards(folder, tmp_path / "cache")) == 6


def test_a_damaged_header_is_not_the_end(tmp_path: Path) -> None:
    folder = write_captioned(tmp_path / "shards", n_shards=1, per_shard=3)
    shard = folder / "train-0000.tar"
    data = bytearray(shard.read_bytes())
    with tarfile.open(shard) as tar:
        offset = tar.getmembers()[3].offset
    data[offset + 150] ^= 0x55  # in the checksum
    shard.write_bytes(data)
    with pytest.raises(ShardError, match=f"after byte {offset}: a damaged header"):
        open_shards(folder, tmp_path / "cache")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_stands_in_a_shard_the_answer_is_examples_or_a_shard_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    path = folder / "a.tar"
    buffer = io.BytesIO()
    form = data.draw(st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name in ("a.png", "n" * 120 + ".txt", "b.json"):
            member = tarfile.TarInfo(name)
            member.size = 40
            tar.addfile(member, io.BytesIO(b"x" * 40))
    content = bytearray(buffer.getvalue()[:6144])
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=6)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        source = open_shards(path, folder / "cache")
    except (ShardError, DataError):
        return
    for index in range(len(source)):
        with pytest.raises(ImageError):
            source.read(index)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x1f\x8b" + b"x" * 600, "compressed with gzip"),
        (b"BZh9" + b"x" * 600, "compressed with bzip2"),
        (b"hello" * 300, "damaged or cut off after byte 0"),
    ],
)
def test_what_is_no_plain_tar_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(ShardError, match=message):
        open_shards(tmp_path / "a.tar", tmp_path / "cache")


def test_shards_without_images_say_what_they_hold(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", [{"__key__": "cat", "v2.png": image_bytes(1)}])
    with pytest.raises(DataError, match=r"no image in the 1 shards.*1 \.v2\.png.*KEY has no dot"):
        open_shards(tmp_path / "a.tar", tmp_path / "cache")


def test_texts_that_mean_harm_are_only_texts(tmp_path: Path) -> None:
    deep = b"[" * 100_000
    write_shard(
        tmp_path / "a.tar",
        [
            {"__key__": "a", "png": image_bytes(1), "json": deep},
            {"__key__": "b", "png": image_bytes(2), "json": b'{"caption": "\\ud800 half"}'},
            {"__key__": "c", "png": image_bytes(3), "json": json.dumps({"caption": 5}).encode()},
            {"__key__": "d", "png": image_bytes(4), "txt": b"x" * (1 << 21)},
        ],
    )
    source = open_shards(tmp_path / "a.tar", tmp_path / "cache")
    assert [source.caption_of(i) for i in range(4)] == [None, "? half", "5", None]


# Which shards


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = write_captioned(tmp_path / "shards", n_shards=2)
    with pytest.raises(DatasetNotFoundError, match=r"train-0002\.tar' and 1 more of 4"):
        find_shards(str(folder / "train-{0000..0003}.tar"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetNotFoundError, match=r"no \.tar file"):
        find_shards(str(tmp_path / "empty"))
    with pytest.raises(ShardError, match="is named twice"):
        find_shards(str(folder / "{train-0000,train-0000}.tar"))
    (tmp_path / "folder.tar").mkdir()
    with pytest.raises(ShardError, match="not a regular file"):
        find_shards(str(tmp_path / "{folder,folder2}.tar").replace("folder2", "shards/train-0000"))


@pytest.mark.parametrize(
    "path",
    [
        "pipe:touch robustzs-was-here",
        "pipe:curl https://host/a.tar",
        "file:///etc/passwd",
        "gs://bucket/train-{00..09}.tar",
        "s3://bucket/a.tar",
        "ftp://host/a.tar",
        "hf://datasets/x/a.tar",
        "{pipe:id,https://host/a.tar}",
        "http://example.org/a.tar",
        "https:///a.tar",
        "https://user:secret@host/a.tar",
        "https://[half/a.tar",
        "",
        "a\0b",
        "train-{0..99999999999999}.tar",
        "{0..999}{0..999}.tar",
        "{a,b}" * 40 + ".tar",
        "train-{0000..0009.tar",
        "train-{" + "9" * 5000 + "..1}.tar",
    ],
)
def test_refused_patterns(path: str) -> None:
    with pytest.raises(ShardError) as caught:
        find_shards(path)
    assert "secret" not in str(caught.value)


def test_a_pattern_is_no_template_for_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WDS_WHERE", str(write_captioned(tmp_path / "shards")))
    with pytest.raises(DatasetNotFoundError):
        find_shards("${WHERE}/train-0000.tar")


def test_a_path_is_needed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs a path"):
        open_webdataset(DataPart(source="webdataset"), cache=tmp_path)


def test_an_unwritable_cache_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    folder = write_captioned(tmp_path / "shards", n_shards=1)
    with pytest.raises(ShardError, match="the index of the shards cannot be written"):
        open_shards(folder, tmp_path / "file")


def test_members_of_one_key_need_not_be_neighbours_but_may_not_be_twice(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name, data in [("a.png", image_bytes(1)), ("b.png", image_bytes(2)), ("a.txt", b"A")]:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    source = open_shards(path, tmp_path / "cache")
    assert [source.caption_of(i) for i in range(2)] == ["A", None]
    with tarfile.open(path, "a") as tar:
        member = tarfile.TarInfo("b.jpg")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"abc"))
    with pytest.raises(ShardError, match=r"second image.*'b\.jpg' at byte"):
        open_shards(path, tmp_path / "cache")
