from __future__ import annotations

import gzip
import hashlib
import re
import struct
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.heldout_photos.cache import HeldoutError, cache_root
from benchmarks.heldout_photos.photos import (
    PhotoLabel,
    load_fashion_mnist,
    read_labels,
    read_picture,
)
from benchmarks.heldout_photos.rcc import RccArchive, RccError
from robustzs.hierarchy.noun_index import NounIndex

PICTURE = b"RIFF....WEBP" + bytes(range(256))
COMPRESSED, FOLDER = 1, 2


def write_rcc(version: int, *, packed: bytes | None = None) -> bytes:
    """A resource file with ``a/raw.webp`` and ``a/packed.webp``, as Qt's rcc lays it out."""
    if packed is None:
        packed = struct.pack(">I", len(PICTURE)) + zlib.compress(PICTURE)
    blobs = b"".join(struct.pack(">I", len(b)) + b for b in (PICTURE, packed))
    names, at = b"", []
    for name in ("a", "raw.webp", "packed.webp"):
        at.append(len(names))
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
    stamp = b"" if version == 1 else struct.pack(">Q", 0)
    tree = (
        struct.pack(">IHII", 0, FOLDER, 1, 1)
        + stamp
        + struct.pack(">IHII", at[0], FOLDER, 2, 2)
        + stamp
        + struct.pack(">IHHHI", at[1], 0, 0, 1, 0)
        + stamp
        + struct.pack(">IHHHI", at[2], COMPRESSED, 0, 1, 4 + len(PICTURE))
        + stamp
    )
    size = 24 if version == 3 else 20
    header = b"qres" + struct.pack(">IIII", version, size, size + len(tree), 0)
    header = header[:16] + struct.pack(">I", size + len(tree) + len(blobs))
    return header + bytes(size - 20) + tree + blobs + names


@pytest.mark.parametrize("version", [1, 2, 3])
def test_rcc_lists_and_unpacks(version: int) -> None:
    archive = RccArchive(write_rcc(version))
    assert archive.paths() == ["a/packed.webp", "a/raw.webp"]
    assert archive.read("a/raw.webp") == PICTURE
    assert archive.read("a/packed.webp") == PICTURE


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"PK\x03\x04" + bytes(40), "not with b'qres'"),
        (write_rcc(3)[:15], "cut short"),
        (write_rcc(3)[:60], "cut short"),
        (b"qres" + struct.pack(">I", 9) + write_rcc(3)[8:], "version 9"),
    ],
)
def test_rcc_refuses_a_broken_file(data: bytes, problem: str) -> None:
    with pytest.raises(RccError, match=re.escape(problem)):
        RccArchive(data, "x.rcc")


@pytest.mark.parametrize(
    "packed",
    [
        struct.pack(">I", 2**31) + zlib.compress(PICTURE),
        struct.pack(">I", 5) + zlib.compress(PICTURE),
        struct.pack(">I", len(PICTURE)) + b"no zlib at all",
        b"",
    ],
)
def test_rcc_refuses_a_broken_entry(packed: bytes) -> None:
    with pytest.raises(RccError, match=r"packed\.webp"):
        RccArchive(write_rcc(3, packed=packed)).read("a/packed.webp")


def test_rcc_refuses_a_loop() -> None:
    data = bytearray(write_rcc(3))
    struct.pack_into(">I", data, 24 + 22 + 10, 1)  # folder "a": first child is itself
    with pytest.raises(RccError, match="two parents"):
        RccArchive(bytes(data))


def test_rcc_names_an_unknown_path() -> None:
    with pytest.raises(RccError, match="b/none"):
        RccArchive(write_rcc(2)).read("b/none")


def test_table_is_well_formed() -> None:
    labels = read_labels()
    assert len(labels) == 521
    assert [label.id for label in labels] == sorted({label.id for label in labels})
    assert max(Counter(label.sha256 for label in labels).values()) == 1
    for label in labels:
        assert re.fullmatch(r"[0-9a-f]{64}", label.sha256), label.id
        assert (label.synset is None) == (label.wnid is None), label.id
        if label.synset is None:
            assert label.note, f"{label.id}: no synset and no reason"
            assert not label.scorable, label.id
        else:
            assert re.fullmatch(r"[^\s]+\.n\.\d\d", label.synset), label.id
            assert re.fullmatch(r"n\d{8}", label.wnid or ""), label.id


def test_table_touches_no_reserved_pictures() -> None:
    assert {label.source for label in read_labels()} == {
        "gcompris-qt-data",
        "opencv-doc",
        "scikit-image",
    }


def label_of(data: bytes, path: str, source: str) -> PhotoLabel:
    digest = hashlib.sha256(data).hexdigest()
    return PhotoLabel(source, path, "x", "dog.n.01", "n02084071", "photo", True, digest, "")


def test_pictures_are_read_from_resources_and_folders(tmp_path: Path) -> None:
    rcc = tmp_path / "packages/gcompris-qt-data/usr/share/gcompris-qt/rcc/lang.rcc"
    rcc.parent.mkdir(parents=True)
    rcc.write_bytes(write_rcc(3))
    plain = tmp_path / "packages/scikit-image/skimage/data/x.png"
    plain.parent.mkdir(parents=True)
    plain.write_bytes(PICTURE)
    found = label_of(PICTURE, "x.png", "scikit-image")
    assert read_picture(found, tmp_path) == PICTURE
    with pytest.raises(HeldoutError, match="no file"):
        read_picture(label_of(PICTURE, "lang.rcc/x.webp", "gcompris-qt-data"), tmp_path)
    with pytest.raises(HeldoutError, match="ships another picture"):
        read_picture(replace(found, sha256="0" * 64), tmp_path)
    with pytest.raises(HeldoutError, match="run python -m"):
        read_picture(replace(found, path="none.png"), tmp_path)


def test_cache_folder_follows_option_then_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROBUSTZS_HELDOUT", str(tmp_path / "env"))
    assert cache_root() == tmp_path / "env"
    assert cache_root(tmp_path) == tmp_path
    monkeypatch.delenv("ROBUSTZS_HELDOUT")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root() == tmp_path / "robustzs" / "heldout"


def write_fashion(cache: Path, images: bytes, labels: bytes) -> None:
    folder = cache / "packages/dataset-fashion-mnist/usr/share/datasets/fashion-mnist"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))


def test_fashion_mnist_is_read(tmp_path: Path) -> None:
    pixels = np.arange(2 * 28 * 28, dtype=np.uint32).astype(np.uint8)
    images = struct.pack(">IIII", 0x803, 2, 28, 28) + pixels.tobytes()
    write_fashion(tmp_path, images, struct.pack(">II", 0x801, 2) + bytes([9, 3]))
    x, y = load_fashion_mnist(cache=tmp_path)
    np.testing.assert_array_equal(x, pixels.reshape(2, 28, 28))
    assert y.dtype == np.int64
    assert y.tolist() == [9, 3]


@pytest.mark.parametrize(
    ("images", "labels", "problem"),
    [
        (struct.pack(">IIII", 0x803, 2, 28, 28), struct.pack(">II", 0x801, 0), "0 bytes for shape"),
        (struct.pack(">IIII", 0x801, 2, 28, 28), b"", "magic number 00000801"),
        (
            struct.pack(">IIII", 0x803, 1, 1, 1) + b"\0",
            struct.pack(">II", 0x801, 2) + b"\0\0",
            "1 pictures but 2 labels",
        ),
    ],
)
def test_fashion_mnist_refuses_broken_files(
    tmp_path: Path, images: bytes, labels: bytes, problem: str
) -> None:
    write_fashion(tmp_path, images, labels)
    with pytest.raises(HeldoutError, match=problem):
        load_fashion_mnist(cache=tmp_path)


def test_fashion_mnist_missing_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(HeldoutError, match="run python -m"):
        load_fashion_mnist(cache=tmp_path)


def test_table_agrees_with_wordnet() -> None:
    index = NounIndex.load()
    for label in read_labels():
        if label.wnid is not None:
            assert index.get(label.wnid).name == label.synset, label.id
            assert index.get(label.synset or "").wnid == label.wnid, label.id
