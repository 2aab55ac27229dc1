from __future__ import annotations

import gzip
import importlib
import inspect
import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image
from robustzs_training.data.named import (
    TorchvisionSource,
    open_torchvision,
)
from robustzs_training.data.torchvision_source import unpickles
from robustzs_training.recipe import DataPart

from robustzs.errors import DataError, DatasetNotFoundError, ImageError
from tests.training.data.loader_process import check_loader_process
from tests.training.data.shard_files import image_bytes

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


def open_vision(name: str | None, path: Path | None, cache: Path, **more: Any) -> TorchvisionSource:
    where = None if path is None else str(path)
    return open_torchvision(
        DataPart(source="torchvision", name=name, path=where, **more), cache=cache
    )


def write_idx(folder: Path, n: int = 6, *, packed: bool = True) -> np.ndarray:
    """Fashion-MNIST's four files with ``n`` pictures each; returns those of the test part."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part in ("train", "t10k"):
        pictures = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        labels = (np.arange(n, dtype=np.uint8) * 3) % 10
        files = {
            f"{part}-images-idx3-ubyte": struct.pack(">4i", 2051, n, 28, 28) + pictures.tobytes(),
            f"{part}-labels-idx1-ubyte": struct.pack(">2i", 2049, n) + labels.tobytes(),
        }
        for name, data in files.items():
            path = folder / (name + ".gz" if packed else name)
            path.write_bytes(gzip.compress(data) if packed else data)
    return pictures


@pytest.mark.parametrize("layout", ["as Debian has it", "as torchvision has it"])
def test_fashion_mnist_from_its_files(tmp_path: Path, layout: str) -> None:
    packed = layout == "as Debian has it"
    folder = tmp_path / "set" if packed else tmp_path / "set" / "FashionMNIST" / "raw"
    pictures = write_idx(folder, packed=packed)
    before = sorted((tmp_path / "set").rglob("*"))
    source = open_vision("FashionMNIST", tmp_path / "set", tmp_path / "cache", split="test")
    assert sorted((tmp_path / "set").rglob("*")) == before  # Debian's folder is not ours to write
    assert source.labels.names[:2] == ("T-shirt/top", "Trouser")
    assert source.label_of.tolist() == [0, 3, 6, 9, 2, 5]
    sample = source.read(4)
    assert (sample.key, sample.label, sample.caption) == ("FashionMNIST/test/000004", 2, None)
    assert source.caption_of(4) is None
    assert sample.image.mode == "RGB"
    assert np.array_equal(np.asarray(sample.image)[..., 1], pictures[4])
    train = open_vision("FashionMNIST", tmp_path / "set", tmp_path / "cache")
    assert train.digest != source.digest
    check_loader_process(source)


@pytest.mark.skipif(not DEBIAN_FASHION_MNIST.is_dir(), reason="needs dataset-fashion-mnist")
def test_fashion_mnist_as_debian_ships_it(tmp_path: Path) -> None:
    source = open_vision("FashionMNIST", DEBIAN_FASHION_MNIST, tmp_path, split="test")
    assert len(source) == 10_000
    assert np.bincount(source.label_of.numpy()).tolist() == [1000] * 10
    assert source.read(9_999).image.size == (28, 28)
    with pytest.raises(IndexError):
        source.read(10_000)


def test_files_are_decoded_by_our_decoder_in_an_order_of_names(tmp_path: Path) -> None:
    root = tmp_path / "food-101"
    names = ["apple_pie/2", "apple_pie/1", "ice_cream/3", "ice_cream/9"]
    for number, name in enumerate(names):
        path = root / "images" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_bytes(number, "JPEG"))
    (root / "images" / "ice_cream" / "9.jpg").write_bytes(b"%PDF-1.4")
    (root / "meta").mkdir()
    classes = {
        kind: [n for n in names if n.startswith(kind)] for kind in ("apple_pie", "ice_cream")
    }
    (root / "meta" / "train.json").write_text(json.dumps(classes))
    source = open_vision("Food101", tmp_path, tmp_path / "cache")
    assert source.labels.names == ("apple pie", "ice cream")
    assert [source.key_of(i) for i in range(4)] == [
        f"food-101/images/{name}.jpg" for name in sorted(names)
    ]
    assert source.label_of.tolist() == [0, 0, 1, 1]
    expected = Image.open(io.BytesIO(image_bytes(1, "JPEG")))
    assert np.array_equal(np.asarray(source.read(0).image), np.asarray(expected))
    with pytest.raises(ImageError, match="PDF"):
        source.read(3)
    digest = source.digest
    assert open_vision("Food101", tmp_path, tmp_path / "cache").digest == digest
    (root / "images" / "apple_pie" / "1.jpg").write_bytes(image_bytes(8, "JPEG", (40, 40)))
    assert open_vision("Food101", tmp_path, tmp_path / "cache").digest != digest


def test_imagenette_gets_its_wnids(tmp_path: Path) -> None:
    for wnid in ("n01440764", "n03888257"):
        folder = tmp_path / "imagenette2" / "val" / wnid
        folder.mkdir(parents=True)
        (folder / "x.jpeg").write_bytes(image_bytes(1, "JPEG"))
    source = open_vision("Imagenette", tmp_path, tmp_path / "cache", split="val")
    assert source.labels.ids == ("n01440764", "n03888257")
    assert source.read(1).key == "imagenette2/val/n03888257/x.jpeg"


def test_image_folder_and_its_split(tmp_path: Path) -> None:
    for kind in ("cat", "dog"):
        (tmp_path / "set" / "train" / kind).mkdir(parents=True)
        (tmp_path / "set" / "train" / kind / "1.png").write_bytes(image_bytes(1))
    source = open_vision("ImageFolder", tmp_path / "set", tmp_path / "cache")
    assert source.labels.names == ("cat", "dog")
    assert source.read(1).key == "dog/1.png"


def test_a_dataset_that_unpickles_is_never_opened(tmp_path: Path) -> None:
    for name in ("CIFAR10", "CIFAR100", "LSUN", "LSUNClass"):
        with pytest.raises(DataError, match=rf"{name} unpickles.*huggingface") as caught:
            open_vision(name, tmp_path, tmp_path / "cache")
        assert not isinstance(caught.value, DatasetNotFoundError)


def test_every_module_of_torchvision_that_unpickles_is_known() -> None:
    """From the source that is installed, so that a new torchvision cannot bring one unseen."""
    for name in torchvision.datasets.__all__:
        kind = getattr(torchvision.datasets, name)
        if not inspect.isclass(kind):
            continue
        sources = [
            inspect.getsource(importlib.import_module(base.__module__))
            for base in kind.__mro__
            if base.__module__.startswith("torchvision.")
        ]
        does = any(
            "pickle.load" in text or "allow_pickle=True" in text or "weights_only=False" in text
            for text in sources
        )
        assert unpickles(kind) == does, name


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        (None, DatasetNotFoundError, "no dataset ''"),
        ("food101", DatasetNotFoundError, "did you mean Food101"),
        ("__builtins__", DatasetNotFoundError, "no dataset"),
        ("wrap_dataset_for_transforms_v2", DatasetNotFoundError, "no dataset"),
        ("ImageNet", DataError, "data.source=wnid-folder"),
        ("CocoCaptions", DataError, "annFile"),
        ("FakeData", DataError, "cannot be made from a folder"),
        ("Food101", DatasetNotFoundError, r"finds no Food101 .*download=True"),
        ("FashionMNIST", DatasetNotFoundError, r"finds no FashionMNIST .*download=True"),
        ("EMNIST", DataError, "Unknown value 'train' for argument split"),
    ],
)
def test_torchvision_refusals(
    tmp_path: Path, name: str | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        open_vision(name, tmp_path, tmp_path / "cache")


def test_torchvision_needs_a_folder_and_a_split_that_is_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"needs data\.path"):
        open_vision("Food101", None, tmp_path)
    with pytest.raises(DatasetNotFoundError, match="there is no folder"):
        open_vision("Food101", tmp_path / "nowhere", tmp_path)
    write_idx(tmp_path / "set")
    with pytest.raises(DataError, match="no split 'extra'"):
        open_vision("FashionMNIST", tmp_path / "set", tmp_path / "cache", split="extra")


def test_damaged_gzip_is_told(tmp_path: Path) -> None:
    write_idx(tmp_path / "set")
    path = tmp_path / "set" / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:100])
    for _ in range(2):  # nothing half-unpacked is left to be found the second time
        with pytest.raises(DataError, match="cannot be unpacked"):
            open_vision("FashionMNIST", tmp_path / "set", tmp_path / "cache")
