from __future__ import annotations

import gc
import io
import json
import multiprocessing
import os
import pickle
import tarfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset
from robustzs_training.data.base import Chunked, SampleSource, Surveyed
from robustzs_training.data.build import build_source
from robustzs_training.data.loader import ExampleLoader
from robustzs_training.data.shards.source import ShardSource
from robustzs_training.data.webdataset import open_webdataset
from robustzs_training.recipe import AugmentPart, DataPart
from torch.utils.data import DataLoader, Dataset

from robustzs.errors import DataError, ImageError, ShardError
from tests.training.data.picture_folders import RULE
from tests.training.data.shard_files import image_bytes, write_captioned, write_shard


def open_shards(path: str | Path, cache: Path, **options: Any) -> ShardSource:
    return open_webdataset(DataPart(source="webdataset", path=str(path), **options), cache=cache)


class Pixels(Dataset):  # type: ignore[type-arg]
    def __init__(self, source: ShardSource) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[str, str, int]:
        sample = self.source.read(index)
        return sample.key, sample.caption or "", int(np.asarray(sample.image).sum())


# What is read


# WebDataset leaves its shards open; that comes to light within this test, by the collection in it.
@pytest.mark.filterwarnings("ignore:.*FileIO:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_examples_are_those_that_webdataset_itself_reads(tmp_path: Path) -> None:
    folder = write_captioned(tmp_path / "shards")
    pattern = str(folder / "train-{0000..0002}.tar")
    source = open_shards(pattern, tmp_path / "cache")
    theirs = list(
        webdataset.WebDataset(pattern, shardshuffle=False, empty_check=False)
        .decode("rgb8")
        .to_tuple("__key__", "png", "txt")
    )
    gc.collect()
    assert len(source) == len(theirs) == 15
    for index, (key, pixels, caption) in enumerate(theirs):
        sample = source.read(index)
        assert sample.key.endswith(f".tar/{key}")
        assert sample.caption == caption == source.caption_of(index)
        assert np.array_equal(np.asarray(sample.image), pixels)
        assert sample.label is None
    assert source.labels is None
    assert source.label_of is None
    assert isinstance(source, Chunked)
    assert isinstance(source, Surveyed)
    protocol: SampleSource = source
    assert protocol.digest == source.digest


@pytest.mark.parametrize("as_path", ["train-{0000..0002}.tar", "", ".."])
def test_a_folder_a_pattern_and_a_split_below_a_folder_mean_the_same(
    tmp_path: Path, as_path: str
) -> None:
    folder = write_captioned(tmp_path / "set" / "train")
    source = open_shards(os.path.join(folder, as_path), tmp_path / "cache")
    assert source.read(14).key == "train-0002.tar/00004"
    assert source.key_of(14) == "train-0002.tar/00004"


def test_chunks_are_the_shards_and_cover_everything(tmp_path: Path) -> None:
    folder = write_captioned(tmp_path / "shards", n_shards=3, per_shard=5)
    source = open_shards(folder, tmp_path / "cache")
    assert list(source.chunks) == [(0, 5), (5, 10), (10, 15)]


def test_every_kind_of_member_is_found_and_pickles_are_left_alone(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "exploded"),)

    bomb = pickle.dumps(Bomb())
    fields = dict.fromkeys(("pyd", "pkl", "pickle", "pth", "npy"), bomb)
    write_shard(
        tmp_path / "a.tar",
        [
            {"__key__": "x/one", "jpg": image_bytes(1, "JPEG"), "txt": b" a cat \n", **fields},
            {"__key__": "x/two", "JPEG": image_bytes(2, "JPEG"), "json": b'{"text": "a dog"}'},
            {
                "__key__": "x/three",
                "webp": image_bytes(3, "WEBP"),
                "json": b'{"caption": "a \xc3\xa9"}',
            },
        ],
    )
    source = open_shards(tmp_path / "a.tar", tmp_path / "cache")
    assert [source.caption_of(i) for i in range(3)] == ["a cat", "a dog", "a é"]
    assert [source.read(i).key for i in range(3)] == [
        f"a.tar/x/{n}" for n in ("one", "two", "three")
    ]
    assert {f".{kind}" for kind in fields} <= set(source.ignored)
    assert not (tmp_path / "exploded").exists()


def test_missing_captions_are_told_and_read_as_none(tmp_path: Path) -> None:
    write_shard(
        tmp_path / "a.tar",
        [
            {"__key__": "a", "png": image_bytes(1), "txt": b"told"},
            {"__key__": "b", "png": image_bytes(2)},
            {"__key__": "c", "png": image_bytes(3), "txt": b"  "},
            {"__key__": "d", "png": image_bytes(4), "txt": b"\xff\xfe broken"},
        ],
    )
    source = open_shards(tmp_path / "a.tar", tmp_path / "cache")
    (finding,) = source.findings
    assert (finding.kind, finding.count, finding.total) == ("missing-caption", 3, 4)
    assert finding.first == ("a.tar/b", "a.tar/c", "a.tar/d")
    assert [source.read(i).caption for i in range(4)] == ["told", None, None, None]
    assert source.ignored == {".txt that cannot be read": 1}


def test_an_example_without_an_image_or_with_a_broken_one_is_an_image_error(tmp_path: Path) -> None:
    write_shard(
        tmp_path / "a.tar",
        [
            {"__key__": "text-only", "txt": b"no picture"},
            {"__key__": "broken", "png": image_bytes(1)[:60], "txt": b"half"},
            {"__key__": "script", "png": b"#!/bin/sh\n", "txt": b"no image"},
            {"__key__": "good", "png": image_bytes(2), "txt": b"whole"},
        ],
    )
    source = open_shards(tmp_path / "a.tar", tmp_path / "cache")
    with pytest.raises(ImageError, match=r"'a\.tar/text-only' has no image"):
        source.read(0)
    for index in (1, 2):
        with pytest.raises(ImageError):
            source.read(index)
    assert source.read(3).caption == "whole"
    with pytest.raises(IndexError):
        source.read(4)
    with pytest.raises(IndexError):
        source.caption_of(-1)


def test_names_are_keys_and_nothing_is_ever_extracted(tmp_path: Path) -> None:
    picture = image_bytes(1)
    long_name = "d" * 90 + "/" + "k" * 180
    names = ["/etc/absolute", "../../escape", "./dot/slash", long_name, "ünï/cödé"]
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        path = tmp_path / f"{form}.tar"
        with tarfile.open(path, "w", format=form) as tar:
            for name in names:
                member = tarfile.TarInfo(f"{name}.png")
                member.size = len(picture)
                tar.addfile(member, io.BytesIO(picture))
            link = tarfile.TarInfo("link.png")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
        before = sorted(p for p in tmp_path.rglob("*") if "cache" not in p.parts)
        source = open_shards(path, tmp_path / "cache")
        assert [source.read(i).key for i in range(len(source))] == [
            f"{form}.tar/{n}" for n in names
        ]
        assert source.ignored == {"not a regular file": 1}
        assert sorted(p for p in tmp_path.rglob("*") if "cache" not in p.parts) == before


def test_keys_of_equal_shards_in_two_folders_stay_apart(tmp_path: Path) -> None:
    for half in ("left", "right"):
        write_shard(tmp_path / half / "0.tar", [{"__key__": "a", "png": image_bytes(1)}])
    source = open_shards(tmp_path / "{left,right}" / "0.tar", tmp_path / "cache")
    assert [source.read(i).key for i in range(2)] == ["left/0.tar/a", "right/0.tar/a"]


# Labels


def labelled(tmp_path: Path, *values: dict[str, bytes]) -> Path:
    examples = [
        {"__key__": f"{i}", "png": image_bytes(i), **fields} for i, fields in enumerate(values)
    ]
    return write_shard(tmp_path / "set" / "a.tar", examples)


def test_labels_by_name_from_cls_and_json(tmp_path: Path) -> None:
    path = labelled(
        tmp_path,
        {"cls": b"golden_retriever\n"},
        {"json": b'{"label": "cat"}'},
        {"json": b'{"cls": "golden_retriever", "caption": "x"}'},
    )
    source = open_shards(path, tmp_path / "cache")
    assert source.labels is not None
    assert source.labels.names == ("cat", "golden retriever")
    assert source.label_of is not None
    assert source.label_of.dtype == torch.int64
    assert source.label_of.tolist() == [1, 0, 1] == [source.read(i).label for i in range(3)]


def test_wnids_name_themselves(tmp_path: Path) -> None:
    path = labelled(tmp_path, {"json": b'{"wnid": "n02084071", "label": 7}'}, {"cls": b"n01440764"})
    source = open_shards(path, tmp_path / "cache")
    assert source.labels is not None
    assert source.labels.ids == ("n01440764", "n02084071")
    assert source.labels.names == ("tench", "dog")
    assert source.label_of is not None
    assert source.label_of.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("file", "content", "above"),
    [
        ("classes.txt", "ant\nbee\ncat\n", False),
        ("classes.json", '["ant", "bee", "cat"]', False),
        ("classnames.txt", "ant\nbee\ncat\n", True),
    ],
)
def test_numbers_count_through_the_class_file(
    tmp_path: Path, file: str, content: str, above: bool
) -> None:
    path = labelled(tmp_path, {"cls": b"2"}, {"json": b'{"label": 0}'}, {"cls": b"bee"})
    (path.parent.parent if above else path.parent).joinpath(file).write_text(content)
    source = open_shards(path, tmp_path / "cache")
    assert source.labels is not None
    assert source.labels.names == ("ant", "bee", "cat")
    assert source.label_of is not None
    assert source.label_of.tolist() == [2, 0, 1]


def test_numbers_without_a_class_file_name_the_remedy(tmp_path: Path) -> None:
    path = labelled(tmp_path, {"cls": b"2"}, {"cls": b"0"})
    with pytest.raises(DataError, match=r"numbers \(\d, .*classes\.txt"):
        open_shards(path, tmp_path / "cache")


def test_examples_without_a_class_are_told_and_left_out(tmp_path: Path) -> None:
    values = [{"cls": b"ant"}, {}, {"cls": b"wasp"}, {"cls": b"bee"}, {"cls": b"-1"}, {"cls": b"9"}]
    path = labelled(tmp_path, *values)
    write_shard(tmp_path / "set" / "b.tar", [{"__key__": "z", "png": image_bytes(9), "cls": b"1"}])
    (tmp_path / "set" / "classes.txt").write_text("ant\nbee\n")
    source = open_shards(path.parent, tmp_path / "cache")
    (finding,) = source.findings
    assert (finding.kind, finding.count, finding.total) == ("missing-label", 4, 7)
    assert finding.first == ("a.tar/1", "a.tar/2", "a.tar/4", "a.tar/5")
    assert [(source.read(i).key, source.read(i).label) for i in range(len(source))] == [
        ("a.tar/0", 0),
        ("a.tar/3", 1),
        ("b.tar/z", 1),
    ]
    assert list(source.chunks) == [(0, 2), (2, 3)]
    (tmp_path / "set" / "classes.txt").write_text("moth\n")
    with pytest.raises(DataError, match="no label in the shards is one of the 1 classes"):
        open_shards(labelled(tmp_path, {"cls": b"ant"}), tmp_path / "cache")


# The same everywhere, and again


def test_the_digest_follows_content_and_not_place(tmp_path: Path) -> None:
    first = open_shards(write_captioned(tmp_path / "one"), tmp_path / "cache")
    second = open_shards(write_captioned(tmp_path / "two"), tmp_path / "other")
    assert first.digest == second.digest
    examples = [{"__key__": "00000", "png": image_bytes(0), "txt": b"another caption"}]
    write_shard(tmp_path / "two" / "train-0002.tar", examples)
    assert open_shards(tmp_path / "two", tmp_path / "other").digest != first.digest


def test_the_second_opening_reads_the_index_and_a_changed_shard_makes_it_anew(
    tmp_path: Path,
) -> None:
    folder = write_captioned(tmp_path / "shards", n_shards=2)
    open_shards(folder, tmp_path / "cache")
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.arrow")}
    assert len(kept) == 2
    source = open_shards(folder, tmp_path / "cache")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.arrow")} == kept

    shard = folder / "train-0001.tar"
    write_shard(shard, [{"__key__": "new", "png": image_bytes(77), "txt": b"new"}])
    with pytest.raises(ShardError, match=r"'train-0001\.tar' has changed since the run began"):
        source.read(7)
    again = open_shards(folder, tmp_path / "cache")
    assert len(again) == 6
    assert again.read(5).caption == "new"


def open_count(path: str, cache: Path) -> int:
    return len(open_shards(path, cache))


def test_processes_that_open_at_once_see_the_same(tmp_path: Path) -> None:
    folder = str(write_captioned(tmp_path / "shards", n_shards=4))
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("fork")) as pool:
        jobs = [pool.submit(open_count, folder, tmp_path / "cache") for _ in range(6)]
        assert [job.result() for job in jobs] == [20] * 6
    assert not list((tmp_path / "cache").rglob("*.tmp"))


def test_a_damaged_index_is_made_anew_and_a_lost_one_stops_the_run(tmp_path: Path) -> None:
    folder = write_captioned(tmp_path / "shards", n_shards=1)
    source = open_shards(folder, tmp_path / "cache")
    (index,) = (tmp_path / "cache").rglob("*.arrow")
    index.write_bytes(index.read_bytes()[:200])
    with pytest.raises(ShardError, match=r"the index of the shard .* is gone or damaged"):
        source.caption_of(0)
    assert open_shards(folder, tmp_path / "cache").caption_of(0) == "picture 0 of shard 0"


def test_a_copy_for_a_loader_process_is_small_and_reads_the_same(tmp_path: Path) -> None:
    folder = write_captioned(tmp_path / "shards", n_shards=1, per_shard=400)
    source = open_shards(folder, tmp_path / "cache")
    source.caption_of(3)  # maps the index
    copy = pickle.dumps(source)
    assert len(copy) < 4000  # 400 captions alone are more
    assert b"picture" not in copy
    assert pickle.loads(copy).read(3).caption == "picture 3 of shard 0"


@pytest.mark.parametrize("n_workers", [1, 2])
def test_loader_processes_read_what_one_process_reads(tmp_path: Path, n_workers: int) -> None:
    pixels = Pixels(open_shards(write_captioned(tmp_path / "shards"), tmp_path / "cache"))
    order = [3, 14, 0, 7, 7, 11, 2]
    loader = DataLoader(
        pixels,
        batch_size=None,
        sampler=order,
        num_workers=n_workers,
        multiprocessing_context=multiprocessing.get_context("fork"),
    )
    assert [tuple(each) for each in loader] == [pixels[i] for i in order]


@pytest.mark.slow
def test_spawned_loader_processes_read_what_one_process_reads(tmp_path: Path) -> None:
    pixels = Pixels(open_shards(write_captioned(tmp_path / "shards"), tmp_path / "cache"))
    loader = DataLoader(
        pixels, batch_size=None, num_workers=2, multiprocessing_context="spawn", shuffle=False
    )
    assert [tuple(each) for each in loader] == [pixels[i] for i in range(15)]


def batches(source: SampleSource, *, n_workers: int = 0, skip: int = 0) -> list[Any]:
    loader = ExampleLoader(
        source,
        batch_size=4,
        augment=AugmentPart(crop="random-resized", flip=True),
        image_size=(16, 16),
        resize=RULE,
        seed=3,
        n_workers=n_workers,
    )
    return [
        (batch.indices.tolist(), batch.keys, batch.captions, batch.pixels.sum().item())
        for batch in loader.epoch(1, skip=skip)
    ]


def test_batches_are_the_same_for_any_number_of_processes_and_after_a_resume(
    tmp_path: Path,
) -> None:
    folder = write_captioned(tmp_path / "shards", n_shards=4)
    part = DataPart(source="webdataset", path=str(folder / "train-{0000..0003}.tar"))
    source = build_source(part, cache=tmp_path / "cache")
    here = batches(source)
    assert len(here) == 5
    assert sorted(index for indices, *_ in here for index in indices) == list(range(20))
    assert batches(source, n_workers=2) == here
    again = build_source(part, cache=tmp_path / "cache")
    assert batches(again, n_workers=1, skip=2) == here[2:]


def test_a_caption_table_goes_before_the_captions_in_the_shards(tmp_path: Path) -> None:
    folder = write_captioned(tmp_path / "shards", n_shards=1, per_shard=2)
    lines = [
        json.dumps({"key": f"train-0000.tar/{i:05d}", "caption": f"told {i}"}) for i in range(2)
    ]
    (tmp_path / "captions.jsonl").write_text("\n".join(lines))
    part = DataPart(
        source="webdataset", path=str(folder), captions=str(tmp_path / "captions.jsonl")
    )
    source = build_source(part, cache=tmp_path / "cache")
    assert [source.read(i).caption for i in range(2)] == ["told 0", "told 1"]
