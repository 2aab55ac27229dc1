from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from robustzs_training.data.captions_table import read_captions
from robustzs_training.data.folders import open_folder

from robustzs.errors import CaptionTableError
from tests.training.data.picture_folders import write_classes, write_picture

ROWS: list[dict[str, object]] = [
    {"key": "cat/000.png", "caption": "a tabby on a mat"},
    {"key": "./cat/001.png", "caption": "  two cats  "},
    {"key": "dog\\000.png", "caption": None},
    {"key": "elsewhere/000.png", "caption": "not in the folder"},
]


def write_parquet(path: Path, rows: Sequence[dict[str, object]]) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def write_jsonl(path: Path, rows: Sequence[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_classes(tmp_path / "images", {"cat": 2, "dog": 2})


@pytest.fixture(params=["parquet", "jsonl"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "parquet":
        return write_parquet(tmp_path / "captions.parquet", ROWS)
    return write_jsonl(tmp_path / "captions.jsonl", ROWS)


def test_captions_are_joined_by_key(folder: Path, table: Path) -> None:
    source = open_folder(folder, captions=table)
    assert [source.caption_of(i) for i in range(4)] == ["a tabby on a mat", "two cats", None, None]
    assert source.read(1).caption == "two cats"
    (finding,) = source.findings
    assert (finding.kind, finding.count, finding.total) == ("missing-caption", 2, 4)
    assert finding.first == ("dog/000.png", "dog/001.png")


def test_captions_change_the_digest(folder: Path, table: Path, tmp_path: Path) -> None:
    bare = open_folder(folder).digest
    with_table = open_folder(folder, captions=table).digest
    other = write_jsonl(tmp_path / "other.jsonl", [{**ROWS[0], "caption": "a tabby"}, *ROWS[1:]])
    assert len({bare, with_table, open_folder(folder, captions=other).digest}) == 3


def test_both_formats_are_one_table(folder: Path, tmp_path: Path) -> None:
    parquet = open_folder(folder, captions=write_parquet(tmp_path / "a.parquet", ROWS))
    jsonl = open_folder(folder, captions=write_jsonl(tmp_path / "a.jsonl", ROWS))
    assert parquet.digest == jsonl.digest


def test_workers_get_a_copy_without_captions(folder: Path, table: Path) -> None:
    source = open_folder(folder, captions=table)
    assert source.for_workers().captions is None
    assert source.for_workers().read(1).key == source.read(1).key


def test_the_authors_layout(folder: Path, tmp_path: Path) -> None:
    captions = tmp_path / "captions"
    captions.mkdir()
    (captions / "cat.json").write_text(json.dumps({"000.png": "a cat", "x/y/001.png": "cats"}))
    (captions / "dog.json").write_text(json.dumps({"000.png": "a dog"}))
    (captions / "README").write_text("not json")
    source = open_folder(folder, captions=captions)
    assert [source.caption_of(i) for i in range(4)] == ["a cat", "cats", "a dog", None]


def test_labels_of_a_table_go_before_folders(tmp_path: Path) -> None:
    for name in ("x.png", "y.png", "sub/z.png"):
        write_picture(tmp_path / "images" / name)
    rows: list[dict[str, object]] = [
        {"key": "x.png", "caption": "one", "label": "dog"},
        {"key": "y.png", "caption": "two", "label": "cat"},
        {"key": "sub/z.png", "caption": "three", "label": "dog"},
    ]
    table = write_parquet(tmp_path / "t.parquet", rows)
    source = open_folder(tmp_path / "images", captions=table)
    assert source.labels is not None
    assert source.labels.names == ("cat", "dog")
    assert source.label_of is not None
    assert source.label_of.tolist() == [1, 0, 1]
    broken = write_jsonl(tmp_path / "t.jsonl", [{**rows[0], "label": None}, *rows[1:]])
    with pytest.raises(CaptionTableError, match=r"none for 'x\.png'"):
        open_folder(tmp_path / "images", captions=broken)


def test_keys_may_name_the_split(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", {"cat": 1})
    table = write_jsonl(tmp_path / "t.jsonl", [{"key": "train/cat/000.png", "caption": "a cat"}])
    assert open_folder(tmp_path, captions=table).caption_of(0) == "a cat"


def test_decomposed_names_are_the_same_names(tmp_path: Path) -> None:
    write_picture(tmp_path / "i" / "cafe\u0301.png")
    table = write_jsonl(tmp_path / "t.jsonl", [{"key": "caf\u00e9.png", "caption": "coffee"}])
    assert open_folder(tmp_path / "i", captions=table).caption_of(0) == "coffee"


def test_a_table_of_other_data_is_a_mistake(folder: Path, tmp_path: Path) -> None:
    table = write_jsonl(tmp_path / "t.jsonl", [{"key": "n01/x.JPEG", "caption": "x"}])
    with pytest.raises(CaptionTableError, match=r"names 'n01/x\.JPEG'.*have 'cat/000\.png'"):
        open_folder(folder, captions=table)


def test_the_same_row_twice_is_one_row(tmp_path: Path) -> None:
    table = read_captions(write_jsonl(tmp_path / "t.jsonl", [ROWS[0], ROWS[0]]))
    assert list(table.keys) == ["cat/000.png"]
    with pytest.raises(CaptionTableError, match=r"two captions for 'cat/000\.png'"):
        read_captions(write_jsonl(tmp_path / "u.jsonl", [ROWS[0], {**ROWS[0], "caption": "x"}]))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "holds no captions"),
        ("a.jsonl", b'{"key": "a", "caption": "b"}\n{"key": "c", "cap', "line 2 is not JSON"),
        ("a.jsonl", b'["a"]\n', "line 1 is not an object"),
        ("a.jsonl", b'{"key": "a"}\n', "line 1 lacks caption; it has key"),
        ("a.jsonl", b'{"key": "", "caption": "b"}\n', "key '' is not a path"),
        ("a.jsonl", b'{"key": "a", "caption": ["b"]}\n', "is not a text"),
        ("a.jsonl", b'{"key": "a", "caption": "b", "label": [1]}\n', "is not a name"),
        ("a.jsonl", b'{"key": "a", "caption": "\xff"}\n', "line 1 is not JSON"),
        ("a.jsonl", b"[" * 200_000, "line 1 is not JSON"),
        ("a.jsonl", b" " * (1 << 21), "longer than"),
        ("a.parquet", b"PAR1 but not really", "not a readable Parquet"),
        ("a.csv", b"key,caption\n", "unknown kind '.csv'"),
    ],
)
def test_broken_tables_say_where(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CaptionTableError, match=message):
        read_captions(path)


def test_parquet_without_the_columns(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [{"file": "a", "text": "b"}])
    with pytest.raises(CaptionTableError, match="lacks key and caption; it has file, text"):
        read_captions(path)


def test_a_damaged_parquet_file(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"key": str(i), "caption": "x" * i} for i in range(500)]
    path = write_parquet(tmp_path / "a.parquet", rows)
    data = bytearray(path.read_bytes())
    data[4:600] = os.urandom(596)
    path.write_bytes(bytes(data))
    with pytest.raises(CaptionTableError, match="damaged"):
        read_captions(path)


def test_paths_that_are_no_tables(tmp_path: Path) -> None:
    with pytest.raises(CaptionTableError, match="No such file"):
        read_captions(tmp_path / "gone.jsonl")
    with pytest.raises(CaptionTableError, match=r"holds no \.json files"):
        read_captions(tmp_path)
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(CaptionTableError, match="not a regular file"):
        read_captions(tmp_path / "pipe.jsonl")
