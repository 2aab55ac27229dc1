from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants as hub_constants
from PIL import Image
from robustzs_training.data.base import Surveyed
from robustzs_training.data.named import (
    HuggingFaceSource,
    open_huggingface,
)
from robustzs_training.data.shards.classes import class_labels
from robustzs_training.recipe import DataPart

from robustzs.errors import DataError, DatasetNotFoundError, ImageError
from robustzs.labels import LabelSet
from tests.training.data.hub_server import HubServer
from tests.training.data.loader_process import check_loader_process
from tests.training.data.shard_files import image_bytes


@pytest.fixture(autouse=True)
def _quiet() -> None:
    datasets.disable_progress_bars()


def open_hub(cache: Path, **more: Any) -> HuggingFaceSource:
    return open_huggingface(DataPart(source="huggingface", **more), cache=cache)


def write_parquet(folder: Path, n: int = 6, **columns: Any) -> Path:
    """As the Hub has them: written by the ``datasets`` package."""
    folder.mkdir(parents=True, exist_ok=True)
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["golden_retriever", "tabby"]),
            "caption": datasets.Value("string"),
        }
    )
    rows = {
        "image": [{"bytes": image_bytes(i), "path": None} for i in range(n)],
        "label": [i % 2 for i in range(n)],
        "caption": [f"picture {i}" for i in range(n)],
        **columns,
    }
    table = datasets.Dataset.from_dict(rows, features=features)
    table.to_parquet(str(folder / "train-00000-of-00001.parquet"))
    return folder


def test_a_folder_of_parquet(tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "set")
    source = open_hub(tmp_path / "cache", path=str(folder))
    assert len(source) == 6
    assert source.labels is not None
    assert source.labels.names == ("golden retriever", "tabby")
    assert source.label_of is not None
    assert source.label_of.tolist() == [0, 1] * 3
    sample = source.read(3)
    assert (sample.key, sample.label, sample.caption) == ("set/train/00000003", 1, "picture 3")
    assert sample.key == source.key_of(3)
    assert source.caption_of(3) == "picture 3"
    expected = np.asarray(Image.open(io.BytesIO(image_bytes(3))))
    assert np.array_equal(np.asarray(sample.image), expected)
    assert isinstance(source, Surveyed)
    assert [(f.kind, f.count) for f in source.findings] == [
        ("missing-label", 0),
        ("missing-caption", 0),
    ]
    check_loader_process(source)


def test_images_are_decoded_by_our_decoder_one_by_one(tmp_path: Path) -> None:
    images = [
        {"bytes": image_bytes(0), "path": None},
        {"bytes": b"GIF89a broken", "path": None},
        None,
        {"bytes": image_bytes(1)[:80], "path": None},
    ]
    more = {"label": [0, 1, 0, 1], "caption": ["a", "b", "c", "d"]}
    folder = write_parquet(tmp_path / "set", image=images, **more)
    source = open_hub(tmp_path / "cache", path=str(folder))
    assert source.read(0).caption == "a"
    for index in (1, 2, 3):
        with pytest.raises(ImageError):
            source.read(index)
    with pytest.raises(IndexError):
        source.read(4)


def test_a_table_does_not_choose_which_files_are_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(image_bytes(7))
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "own.jpg").write_bytes(image_bytes(2, "JPEG"))
    paths = [
        str(secret),
        f"{folder}/../secret.png",
        "https://host/x.png",
        "",
        str(folder / "own.jpg"),
    ]
    rows = [{"bytes": None, "path": path} for path in paths]
    column = pa.array(rows, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    pq.write_table(pa.table({"image": column}), folder / "train.parquet")
    source = open_hub(tmp_path / "cache", path=str(folder))
    for index in range(3):
        with pytest.raises(ImageError, match=r"only the path .* which is not followed"):
            source.read(index)
    with pytest.raises(ImageError, match="no image"):
        source.read(3)
    assert source.read(4).key == source.key_of(4) == "own.jpg"
    assert source.key_of(0) == "set/train/00000000"


@pytest.mark.parametrize("name", ["image", "jpg"])
def test_plain_parquet_with_bytes_and_names(tmp_path: Path, name: str) -> None:
    (tmp_path / "set").mkdir()
    table = pa.table(
        {
            name: pa.array([image_bytes(i) for i in range(4)], pa.binary()),
            "label": ["tabby", "dog", "tabby", None],
            "text": [["", "first", "second"], [], None, ["last"]],
            "thumbnail": pa.array([b"x"] * 4, pa.binary()),
        }
    )
    pq.write_table(table, tmp_path / "set" / "train.parquet")
    source = open_hub(tmp_path / "cache", path=str(tmp_path / "set"))
    assert source.labels is not None
    assert source.labels.names == ("dog", "tabby")
    assert [source.read(i).label for i in range(len(source))] == [1, 0, 1]
    assert [source.caption_of(i) for i in range(3)] == ["first", None, None]
    missing, captions = source.findings
    assert (missing.kind, missing.count, missing.total) == ("missing-label", 1, 4)
    assert missing.first == ("set/train/00000003",)
    assert (captions.kind, captions.count) == ("missing-caption", 2)


def test_unlabelled_rows_are_left_out_and_told(tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "set", label=[0, -1, 1, None, 1, 0])
    source = open_hub(tmp_path / "cache", path=str(folder))
    assert [source.read(i).key[-1] for i in range(len(source))] == ["0", "2", "4", "5"]
    assert source.label_of is not None
    assert source.label_of.tolist() == [0, 1, 1, 0]
    assert source.findings[0].count == 2
    nothing = write_parquet(tmp_path / "none", label=[-1] * 6)
    assert open_hub(tmp_path / "cache", path=str(nothing)).labels is None


def test_image_folder_of_the_package(tmp_path: Path) -> None:
    for kind in ("cat", "dog"):
        (tmp_path / "set" / "train" / kind).mkdir(parents=True)
        for i in range(2):
            (tmp_path / "set" / "train" / kind / f"{i}.png").write_bytes(image_bytes(i))
    source = open_hub(tmp_path / "cache", path=str(tmp_path / "set"))
    assert source.labels is not None
    assert source.labels.names == ("cat", "dog")
    assert source.read(2).key == "train/dog/0.png"
    assert len(source.digest) == 64
    check_loader_process(source)
    elsewhere = tmp_path / "moved"
    (tmp_path / "set").rename(elsewhere)
    assert open_hub(tmp_path / "cache", path=str(elsewhere)).digest == source.digest


def test_the_digest_follows_captions_and_images(tmp_path: Path) -> None:
    first = open_hub(tmp_path / "cache", path=str(write_parquet(tmp_path / "a" / "set"))).digest
    again = open_hub(tmp_path / "cache2", path=str(write_parquet(tmp_path / "b" / "set"))).digest
    assert first == again
    captions = [f"picture {i}" for i in range(5)] + ["changed"]
    other = write_parquet(tmp_path / "c" / "set", caption=captions)
    assert open_hub(tmp_path / "cache", path=str(other)).digest != first


def test_a_loading_script_is_refused(tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "evil")
    touched = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(touched)!r}, 'w')\n")
    with pytest.raises(DataError, match="needs a loading script"):
        open_hub(tmp_path / "cache", path=str(folder))
    assert not touched.exists()


def test_other_formats_name_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "train.csv").write_text("image,label\na.png,1\n")
    with pytest.raises(DataError, match="'csv'; robustzs takes parquet"):
        open_hub(tmp_path / "cache", path=str(tmp_path / "csv"))
    (tmp_path / "tar").mkdir()
    (tmp_path / "tar" / "train.tar").write_bytes(b"\0" * 10240)
    with pytest.raises(DataError, match=r"data\.source=webdataset"):
        open_hub(tmp_path / "cache", path=str(tmp_path / "tar"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        open_hub(tmp_path / "cache", path=str(tmp_path / "empty"))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "train.parquet").write_bytes(b"PAR1 this is not PAR1")
    with pytest.raises(DataError, match="cannot be read"):
        open_hub(tmp_path / "cache", path=str(tmp_path / "bad"))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"text": ["a"]}, "no column that is clearly the image; it has text"),
        ({"image": [b"x"], "label": [3]}, "nothing says what the classes are called"),
    ],
)
def test_tables_without_what_is_needed(
    tmp_path: Path, table: dict[str, list[Any]], message: str
) -> None:
    (tmp_path / "set").mkdir()
    pq.write_table(pa.table(table), tmp_path / "set" / "train.parquet")
    with pytest.raises(DataError, match=message):
        open_hub(tmp_path / "cache", path=str(tmp_path / "set"))


def test_an_unknown_split_lists_those_there_are(tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "set")
    with pytest.raises(DatasetNotFoundError, match=r"no split 'test' \(data.split is one of train"):
        open_hub(tmp_path / "cache", path=str(folder), split="test")


@pytest.mark.parametrize(
    "name", ["", "parquet", "pandas", "webdataset", "../x", "a/b/c", "https://x/y", "-x", "a b"]
)
def test_what_is_no_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="is not the name of a Hugging Face dataset"):
        open_hub(tmp_path, name=name)


def test_a_name_and_a_path_are_not_both_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_parquet(tmp_path / "owner" / "set")
    with pytest.raises(DataError, match="not both"):
        open_hub(tmp_path, path=str(folder), name="owner/set")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"write data\.path=owner/set"):
        open_hub(tmp_path, name="owner/set")
    with pytest.raises(DatasetNotFoundError, match="there is no folder"):
        open_hub(tmp_path, path="owner/other")


def test_a_hub_out_of_reach_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(hub_constants, "ENDPOINT", "https://127.0.0.1:9")  # nobody listens there
    before = datasets.config.HF_HUB_OFFLINE
    start = time.monotonic()
    with pytest.raises(DatasetNotFoundError, match=r"cannot be reached.*data\.path=DIR"):
        open_hub(tmp_path, name="nobody/nothing:default")
    assert time.monotonic() - start < 15  # the package alone takes 23 seconds
    assert before == datasets.config.HF_HUB_OFFLINE


ASK = """
import sys
from pathlib import Path
from robustzs.errors import RobustZSError
from robustzs_training.data.named import open_huggingface
from robustzs_training.recipe import DataPart
try:
    part = DataPart(source="huggingface", name=sys.argv[1])
    source = open_huggingface(part, cache=Path(sys.argv[2]))
    print(len(source), source.labels.names, source.read(1).key, source.read(1).caption)
except RobustZSError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("as_files", [False, True])
def test_a_repository_on_a_hub_and_later_without_it(tmp_path: Path, as_files: bool) -> None:
    """Against a server that speaks the Hub's protocol, since its address is fixed at import."""
    if as_files:
        files = {f"train/{kind}/{i}.png": image_bytes(i) for i in range(2) for kind in ("a", "b")}
        expected = "4 ('a', 'b')"
    else:
        table = write_parquet(tmp_path / "set") / "train-00000-of-00001.parquet"
        files = {"data/train-00000-of-00001.parquet": table.read_bytes()}
        expected = "6 ('golden retriever', 'tabby') pets/train/00000001 picture 1"

    def ask(name: str) -> str:
        environment = {
            **{key: value for key, value in os.environ.items() if "proxy" not in key.lower()},
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        command = [sys.executable, "-c", ASK, name, str(tmp_path / "cache")]
        return subprocess.run(command, env=environment, capture_output=True, text=True).stdout

    with HubServer("me/pets", files) as hub:
        answer = ask("me/pets@main:default")
        assert answer.startswith(expected)
    assert ask("me/pets") == answer  # from the cache


# Names of classes


def test_the_thousand_classes_of_imagenet_are_recognised() -> None:
    labels = LabelSet.imagenet1k()
    # As Hugging Face lists them: WordNet's lemmas, two of them "crane".
    listed = [", ".join([label.name, *label.aliases]) for label in labels]
    listed[134] = listed[517] = "crane"
    assert class_labels(listed, "it").ids == labels.ids
    with pytest.raises(DataError, match="the classes of it cannot be used"):
        class_labels(["crane"] * 2, "it")
    assert class_labels(["ice_cream", "crane.n.05"], "it").names[0] == "ice cream"
