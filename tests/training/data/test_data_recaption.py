from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from robustzs_training.data.base import Chunked, Sample, SampleSource, Surveyed
from robustzs_training.data.captions_table import read_captions
from robustzs_training.data.folders import FolderSource, open_folder
from robustzs_training.data.loader import ExampleLoader
from robustzs_training.data.recaption import derangement, recaption, with_captions
from robustzs_training.data.trouble import Trouble

from robustzs.errors import CaptionTableError, DataError
from tests.training.data.picture_folders import CENTER, RULE, write_classes, write_picture
from tests.training.data.test_data_captions import write_jsonl

TEMPLATE = "This is a photo of a {}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_classes(tmp_path / "i", {"tabby_cat": 3, "beagle": 2, "blorp": 1})


@pytest.fixture
def source(folder: Path, tmp_path: Path) -> FolderSource:
    rows: list[dict[str, object]] = [
        {"key": key, "caption": f"this is {key}"} for key in open_folder(folder).scan.keys
    ]
    return open_folder(folder, captions=write_jsonl(tmp_path / "t.jsonl", rows[:-1]))


def captions(source: SampleSource) -> list[str | None]:
    return [source.caption_of(index) for index in range(len(source))]


def test_as_is_is_the_source(source: FolderSource) -> None:
    assert recaption(source, "as-is", template=TEMPLATE) is source


def test_names(source: FolderSource) -> None:
    named = recaption(source, "names", template=TEMPLATE)
    assert captions(named) == [
        "This is a photo of a beagle",
        "This is a photo of a beagle",
        "This is a photo of a blorp",
        "This is a photo of a tabby cat",
        "This is a photo of a tabby cat",
        "This is a photo of a tabby cat",
    ]
    assert named.read(0).caption == "This is a photo of a beagle"
    assert named.read(0).key == source.read(0).key
    # The table lacked one; that does not matter here.
    assert isinstance(named, Surveyed)
    assert named.findings == ()


def test_names_and_properties_come_from_wordnet(source: FolderSource) -> None:
    told = recaption(source, "names-and-properties", template=TEMPLATE)
    texts = captions(told)
    assert "tabby cat" in (texts[3] or "")
    assert len((texts[3] or "").split()) > 8
    assert "blorp" in (texts[2] or "")
    assert isinstance(told, Surveyed)
    (finding,) = told.findings
    assert (finding.kind, finding.count, finding.first) == ("unresolved-name", 1, ("blorp",))


def test_shuffled_captions_are_the_same_ones_elsewhere(source: FolderSource) -> None:
    shuffled = recaption(source, "shuffled", template=TEMPLATE, seed=1)
    before, after = captions(source), captions(shuffled)
    assert Counter(before) == Counter(after)
    assert all(a != b for a, b in zip(before, after, strict=True))
    assert isinstance(shuffled, Surveyed)
    assert shuffled.findings == source.findings


@given(st.integers(2, 200), st.integers(0, 50))
def test_a_derangement_leaves_nothing_in_place(n: int, seed: int) -> None:
    rows = derangement(n, seed)
    assert sorted(rows.tolist()) == list(range(n))
    assert all(row != place for place, row in enumerate(rows.tolist()))
    assert (rows == derangement(n, seed)).all()


def test_derangements_reach_everywhere() -> None:
    targets = [Counter(int(derangement(5, seed)[0]) for seed in range(400))]
    assert set(targets[0]) == {1, 2, 3, 4}
    assert min(targets[0].values()) > 60


def test_every_mode_has_a_digest_of_its_own(source: FolderSource) -> None:
    made = [source.digest]
    made += [recaption(source, "shuffled", template=TEMPLATE, seed=s).digest for s in (0, 1)]
    made += [recaption(source, "names", template=t).digest for t in (TEMPLATE, "a {}")]
    made.append(recaption(source, "names-and-properties", template=TEMPLATE).digest)
    assert len(set(made)) == len(made)
    assert recaption(source, "shuffled", template=TEMPLATE, seed=1).digest == made[2]


@pytest.mark.parametrize("mode", ["names", "shuffled"])
@pytest.mark.parametrize("n_workers", [0, 1])
def test_batches_have_the_other_captions(source: FolderSource, mode: str, n_workers: int) -> None:
    other = recaption(source, mode, template=TEMPLATE)
    with ExampleLoader(
        other,
        batch_size=3,
        augment=CENTER,
        image_size=(32, 32),
        resize=RULE,
        seed=0,
        n_workers=n_workers,
        trouble=Trouble(1.0),
    ) as loader:
        for batch in loader.epoch(0):
            wanted = tuple(other.caption_of(int(i)) or "" for i in batch.indices)
            assert batch.captions == wanted
            assert batch.keys == tuple(source.key_of(int(i)) for i in batch.indices)


def test_workers_get_no_captions(source: FolderSource) -> None:
    other = recaption(source, "names", template=TEMPLATE)
    lean = other.for_workers()  # type: ignore[attr-defined]
    assert isinstance(lean, FolderSource)
    assert lean.captions is None


def test_modes_that_cannot_be(source: FolderSource, tmp_path: Path) -> None:
    flat = open_folder(write_picture(tmp_path / "flat" / "a.png").parent)
    with pytest.raises(DataError, match="the data have none"):
        recaption(flat, "names", template=TEMPLATE)
    with pytest.raises(DataError, match="1 captions cannot be shuffled"):
        recaption(flat, "shuffled", template=TEMPLATE)
    with pytest.raises(DataError, match="'a photo' has no place for the class"):
        recaption(source, "names", template="a photo")
    with pytest.raises(DataError, match="no caption_mode 'rhymes'"):
        recaption(source, "rhymes", template=TEMPLATE)


class _Shards:
    """A source with keys and chunks, but not made from a folder."""

    labels = None
    label_of = None
    digest = "1" * 64
    chunks = ((0, 2), (2, 4))

    def __len__(self) -> int:
        return 4

    def key_of(self, index: int) -> str:
        return f"a.tar/{index}"

    def caption_of(self, index: int) -> str | None:
        return None

    def read(self, index: int) -> Sample:
        raise NotImplementedError


class _Nameless:
    labels = None
    label_of = None
    digest = "2" * 64

    def __len__(self) -> int:
        return 1

    def caption_of(self, index: int) -> str | None:
        return None

    def read(self, index: int) -> Sample:
        raise NotImplementedError


def test_any_source_with_keys_takes_a_table(tmp_path: Path) -> None:
    table = read_captions(
        write_jsonl(tmp_path / "t.jsonl", [{"key": f"a.tar/{i}", "caption": str(i)} for i in "013"])
    )
    joined = with_captions(_Shards(), table)
    assert captions(joined) == ["0", "1", None, "3"]
    assert isinstance(joined, Chunked)
    assert list(joined.chunks) == [(0, 2), (2, 4)]
    assert isinstance(joined, Surveyed)
    (finding,) = joined.findings
    assert (finding.count, finding.first) == (1, ("a.tar/2",))
    assert captions(pickle.loads(pickle.dumps(joined))) == captions(joined)
    with pytest.raises(DataError, match="no keys"):
        with_captions(_Nameless(), table)
    other = write_jsonl(tmp_path / "u.jsonl", [{"key": "b", "caption": "c"}])
    with pytest.raises(CaptionTableError, match="names 'b'"):
        with_captions(_Shards(), read_captions(other))


def test_a_folder_is_not_read_like_shards(source: FolderSource) -> None:
    assert not isinstance(recaption(source, "names", template=TEMPLATE), Chunked)
