from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from robustzs_training.data.build import build_source
from robustzs_training.data.resolve import labels_of_names, resolve_classes, unresolved_names
from robustzs_training.data.trouble import Trouble
from robustzs_training.recipe import DataPart

from robustzs.errors import DatasetNotFoundError, RecipeError, TooManyBadSamplesError
from robustzs.labels import LabelSet
from tests.training.data.picture_folders import picture, write_classes
from tests.training.data.test_data_captions import write_jsonl


def part(**fields: object) -> DataPart:
    return DataPart.model_validate({"source": "folder", **fields})


def test_a_folder_with_captions(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "i", {"cat": 1, "dog": 1})
    table = write_jsonl(tmp_path / "t.jsonl", [{"key": "cat/000.png", "caption": "a cat"}])
    source = build_source(part(path=str(root), captions=str(table)), cache=tmp_path / "cache")
    assert [source.caption_of(i) for i in range(2)] == ["a cat", None]
    named = build_source(part(path=str(root), caption_mode="names"), cache=tmp_path / "cache")
    assert named.caption_of(1) == "This is a photo of a dog"


def test_a_wnid_folder(tmp_path: Path) -> None:
    root = write_classes(tmp_path, {"n01440764": 1, "n01443537": 1})
    source = build_source(part(source="wnid-folder", path=str(root)), cache=tmp_path / "cache")
    assert source.labels is not None
    assert source.labels.names == ("tench", "goldfish")


def test_shards_with_a_caption_table(tmp_path: Path) -> None:
    shard = tmp_path / "a-000.tar"
    with tarfile.open(shard, "w") as tar:
        for number in range(3):
            buffer = io.BytesIO()
            picture(number).save(buffer, "PNG")
            info = tarfile.TarInfo(f"{number:03d}.png")
            info.size = buffer.tell()
            buffer.seek(0)
            tar.addfile(info, buffer)
    bare = build_source(part(source="webdataset", path=str(shard)), cache=tmp_path / "cache")
    keys = [bare.read(i).key for i in range(3)]
    table = write_jsonl(tmp_path / "t.jsonl", [{"key": keys[1], "caption": "the second"}])
    source = build_source(
        part(source="webdataset", path=str(shard), captions=str(table)), cache=tmp_path / "cache"
    )
    assert [source.caption_of(i) for i in range(3)] == [None, "the second", None]
    assert source.read(1).caption == "the second"


def test_home_folders_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_classes(tmp_path / "pictures", {"cat": 1})
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(build_source(part(path="~/pictures"), cache=tmp_path / "cache")) == 1
    with pytest.raises(DatasetNotFoundError):
        build_source(part(path="~nobody-of-that-name/x"), cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "'folder' needs a path"),
        ({"source": "wnid-folder"}, "'wnid-folder' needs a path"),
        ({"source": "webdataset"}, "'webdataset' needs a path"),
        ({"source": "torchvision"}, "'torchvision' needs the name"),
        ({"source": "huggingface"}, "'huggingface' needs the name"),
        ({"path": "x", "name": "cifar10"}, "'cifar10' has no meaning for data.source 'folder'"),
    ],
)
def test_what_is_missing_is_told(fields: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=message):
        build_source(part(**fields), cache=tmp_path)


# ---- classes -------------------------------------------------------------------------------------


def test_classes_get_their_senses() -> None:
    resolved = resolve_classes(LabelSet.from_names(["golden retriever", "tabby", "n02084071"]))
    assert [label.synset for label in resolved.labels] == ["n02099601", "n02123045", "n02084071"]
    assert resolved.labels.ids == ("golden-retriever", "tabby", "n02084071")
    assert (resolved.finding.count, resolved.finding.total) == (0, 3)


def test_classes_that_wordnet_lacks_are_counted_and_named() -> None:
    names = ["tabby", "blorp", "n99999999", "xyzzy"]
    resolved = resolve_classes(LabelSet.from_names(names))
    assert (resolved.finding.count, resolved.finding.total) == (3, 4)
    assert resolved.finding == unresolved_names(resolved.resolutions)
    trouble = Trouble(0.5)
    with pytest.raises(
        TooManyBadSamplesError, match=r"3 of 4 are class names that WordNet lacks.*blorp"
    ):
        trouble.found(resolved.finding)
    Trouble(0.75).found(resolved.finding)


def test_several_senses_are_a_warning() -> None:
    resolved = resolve_classes(LabelSet.from_names(["crane", "heron", "stork"]))
    assert resolved.labels[0].synset == "n02012849"  # the bird, for its company
    assert resolved.finding.count == 0


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("golden_retriever", "golden retriever"),
        ("001.Black_footed_Albatross", "Black footed Albatross"),
        ("747", "747"),
        ("123.456", "123.456"),
        ("_", "_"),
        ("日本", "日本"),
    ],
)
def test_names_as_data_sets_write_them(written: str, spoken: str) -> None:
    assert labels_of_names([written], "here").names == (spoken,)
