from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from robustzs_training.data.base import Sample
from robustzs_training.data.folders import FolderSource, open_folder
from robustzs_training.data.loader import ExampleLoader
from robustzs_training.data.transform import center_pixels
from robustzs_training.data.trouble import Trouble

from robustzs.errors import DataError, ShardError, TooManyBadSamplesError, UsageError
from robustzs.hierarchy.load import load_hierarchy
from robustzs.hierarchy.tree import Hierarchy
from robustzs.images.preprocess import PreprocessConfig
from tests.training.data.loaders import assert_same, make
from tests.training.data.picture_folders import (
    CENTER,
    RULE,
    picture,
    write_bad,
    write_classes,
)
from tests.training.data.test_data_captions import write_jsonl


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """52 pictures of three classes, two of them broken."""
    root = write_classes(tmp_path_factory.mktemp("pictures"), {"cat": 20, "dog": 20, "oak": 10})
    write_bad(root / "cat", ["empty", "cut"])
    return root


@pytest.fixture(scope="module")
def source(folder: Path) -> FolderSource:
    rows: list[dict[str, object]] = [
        {"key": key, "caption": f"this is {key}"}
        for key in open_folder(folder).scan.keys
        if not key.startswith("oak/00")
    ]
    return open_folder(folder, captions=write_jsonl(folder / "captions.jsonl", rows))


def test_a_batch_holds_what_the_source_has(source: FolderSource) -> None:
    loader = make(source, augment=CENTER)
    batches = list(loader.epoch(0))
    assert len(batches) == loader.steps_per_epoch == 52 // 8
    seen: set[int] = set()
    for batch in batches:
        assert batch.pixels.shape == (8, 3, 32, 32)
        assert batch.pixels.dtype == torch.uint8
        assert batch.labels is not None
        assert batch.captions is not None
        for row, index in enumerate(batch.indices.tolist()):
            sample = source.read(index)
            assert batch.keys[row] == sample.key
            assert torch.equal(batch.pixels[row], center_pixels(sample.image, RULE))
            assert int(batch.labels[row]) == sample.label
            assert batch.captions[row] == (sample.caption or "")
            seen.add(index)
    assert len(seen) >= 46


@pytest.mark.parametrize("n_workers", [1, 3])
def test_loader_processes_change_nothing(source: FolderSource, n_workers: int) -> None:
    alone = make(source)
    with make(source, n_workers=n_workers) as many:
        for epoch in (0, 1):
            assert_same(list(many.epoch(epoch)), list(alone.epoch(epoch)))
        assert_same(list(many.epoch(1, skip=4)), list(alone.epoch(1))[4:])
    assert many.trouble.summary()["unreadable-image"] == alone.trouble.summary()["unreadable-image"]
    assert many.digest == alone.digest


def test_training_processes_share_the_same_global_batches(source: FolderSource) -> None:
    whole = list(make(source, batch_size=8).epoch(3))
    parts = [list(make(source, batch_size=4, rank=rank, world_size=2).epoch(3)) for rank in (0, 1)]
    for batch, first, second in zip(whole, *parts, strict=True):
        assert torch.equal(batch.pixels, torch.cat([first.pixels, second.pixels]))
        assert batch.keys == first.keys + second.keys
    digests = {make(source, batch_size=4, rank=r, world_size=2).digest for r in (0, 1)}
    assert digests == {make(source, batch_size=8).digest}


def test_skipped_batches_are_not_read(source: FolderSource) -> None:
    loader = make(source)
    rest = list(loader.epoch(0, skip=4))
    assert loader.trouble.summary()["seen"] <= 8 * 2 + 4
    assert_same(rest, list(make(source).epoch(0))[4:])


def test_global_random_numbers_are_left_alone(source: FolderSource) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    list(make(source).epoch(0))
    with make(source, n_workers=1) as loader:
        list(loader.epoch(0))
    assert torch.equal(before, torch.get_rng_state())


def test_bad_images_are_replaced_counted_and_named(source: FolderSource) -> None:
    loader = make(source, batch_size=13)  # 4 batches take all 52
    batches = list(loader.epoch(0))
    assert sum(len(batch) for batch in batches) == 52
    keys = [key for batch in batches for key in batch.keys]
    assert not [key for key in keys if "zz-" in key]
    told = loader.trouble.summary()["unreadable-image"]
    assert told["count"] == 2
    assert {one["key"] for one in told["first"]} == {"cat/zz-cut.jpg", "cat/zz-empty.jpg"}
    assert {one["reason"] for one in told["first"]} >= {"the image is empty"}
    assert_same(batches, list(make(source, batch_size=13).epoch(0)))


def test_too_many_bad_images_stop_the_run(tmp_path: Path) -> None:
    root = write_classes(tmp_path, {"cat": 30})
    for number in range(30):
        (root / "cat" / f"bad{number}.jpg").write_bytes(b"")
    for n_workers in (0, 1):
        loader = make(open_folder(root), limit=0.05, n_workers=n_workers)
        with pytest.raises(TooManyBadSamplesError, match=r"cat/bad\d+\.jpg \(the image is empty"):
            list(loader.epoch(0))


def test_nothing_but_bad_images_stops_at_once(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"bad{number}.jpg").write_bytes(b"no")
    with pytest.raises(TooManyBadSamplesError, match=r"\d+ of 17 are images that cannot be read"):
        next(iter(make(open_folder(tmp_path), limit=0.1).epoch(0)))
    # Whoever allows everything learns that there is nothing.
    with pytest.raises(TooManyBadSamplesError, match="so are 16 images that were tried"):
        next(iter(make(open_folder(tmp_path), limit=1.0).epoch(0)))


def test_missing_captions_are_known_before_the_first_step(source: FolderSource) -> None:
    with pytest.raises(TooManyBadSamplesError, match=r"10 of 52 are images without a caption"):
        make(source, limit=0.1)
    loader = make(source, limit=0.2)
    list(loader.epoch(0))
    assert loader.trouble.count("missing-caption") == 10  # and not counted once more on the way


def test_data_without_captions_have_none(folder: Path) -> None:
    batch = next(iter(make(open_folder(folder)).epoch(0)))
    assert batch.captions is None


def test_pixels_come_at_the_size_of_the_recipe(source: FolderSource) -> None:
    loader = ExampleLoader(
        source,
        batch_size=4,
        augment=CENTER,
        image_size=(28, 28),
        resize=PreprocessConfig(image_size=(56, 56), resize_size=64),
        seed=0,
        trouble=Trouble(1.0),
    )
    batch = next(iter(loader.epoch(0)))
    image = source.read(int(batch.indices[0])).image
    rule = PreprocessConfig(image_size=(28, 28), resize_size=32)
    assert torch.equal(batch.pixels[0], center_pixels(image, rule))


def test_siblings_need_classes_and_a_tree(source: FolderSource, tmp_path: Path) -> None:
    assert source.labels is not None
    tree = load_hierarchy("wordnet", source.labels, on_ambiguous="first").hierarchy
    assert isinstance(tree, Hierarchy)
    loader = make(source, siblings=2, hierarchy=tree)
    assert sum(len(batch) for batch in loader.epoch(0)) == 48
    assert loader.digest != make(source).digest
    with pytest.raises(DataError, match="siblings=2 needs classes"):
        make(source, siblings=2)


def test_impossible_numbers_are_refused(source: FolderSource) -> None:
    with pytest.raises(DataError, match="52 images, fewer than one batch of 64"):
        make(source, batch_size=32, world_size=2)
    for options in ({"batch_size": 0}, {"rank": 1}, {"n_workers": -1}, {"siblings": 0}):
        with pytest.raises(UsageError):
            make(source, **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        next(iter(make(source).epoch(-1)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("n_workers", [0, 2])
def test_pixels_are_pinned_where_there_is_cuda(source: FolderSource, n_workers: int) -> None:
    with make(source, n_workers=n_workers) as loader:
        batches = list(loader.epoch(0))
    assert all(batch.pixels.is_pinned() for batch in batches)
    assert_same(batches, list(make(source).epoch(0)))


class _Lost(FolderSource):
    """A source whose shards went away."""

    def read(self, index: int) -> Sample:
        raise ShardError("the shard 'a.tar' is gone", hint="mount the disk")

    def for_workers(self) -> _Lost:
        return self


@pytest.mark.parametrize("n_workers", [0, 1])
def test_a_source_that_is_gone_stops_the_run_with_its_own_words(
    folder: Path, n_workers: int
) -> None:
    whole = open_folder(folder)
    loader = make(_Lost(scan=whole.scan), n_workers=n_workers)
    with pytest.raises(ShardError, match="is gone") as caught:
        next(iter(loader.epoch(0)))
    assert caught.value.hint == "mount the disk"


class _Memory:
    """The smallest source that the protocol allows: no digest of files, no extras."""

    labels = None
    label_of = None
    digest = "0" * 64

    def __init__(self, captions: Sequence[str | None]) -> None:
        self.texts = captions

    def __len__(self) -> int:
        return len(self.texts)

    def caption_of(self, index: int) -> str | None:
        return self.texts[index]

    def read(self, index: int) -> Sample:
        return Sample(
            key=str(index), image=picture(index), label=index % 2, caption=self.texts[index]
        )


def test_captions_that_no_finding_counts_are_counted_on_the_way() -> None:
    loader = make(_Memory(["a", None, "c", ""]), batch_size=4)
    (batch,) = list(loader.epoch(0))
    assert sorted(batch.captions or ()) == ["", "", "a", "c"]
    assert loader.trouble.count("missing-caption") == 2
    assert batch.labels is not None
    assert batch.labels.tolist() == [int(key) % 2 for key in batch.keys]


@pytest.fixture(autouse=True, scope="module")
def _server_ends() -> Iterator[None]:
    """Leave no fork server for the next file."""
    yield
    from multiprocessing import forkserver

    forkserver._forkserver._stop()  # type: ignore[attr-defined]
