from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
from robustzs_training.data.folders import FolderSource, open_folder
from robustzs_training.data.scan import scan_folder

from robustzs.errors import DataError, DatasetNotFoundError, ImageError
from tests.training.data.picture_folders import write_bad, write_classes, write_picture


def keys(source: FolderSource) -> list[str]:
    return list(source.scan.keys)


def test_class_folders_become_labels(tmp_path: Path) -> None:
    write_classes(tmp_path, {"golden_retriever": 2, "001.ak47": 1, "Zebra": 1})
    source = open_folder(tmp_path)
    assert source.labels is not None
    assert source.labels.names == ("ak47", "Zebra", "golden retriever")
    assert source.label_of is not None
    assert source.label_of.tolist() == [0, 1, 2, 2]
    sample = source.read(2)
    assert (sample.key, sample.label, sample.caption) == ("golden_retriever/000.png", 2, None)
    assert sample.image.mode == "RGB"
    assert sample.image.size == (40, 36)


def test_a_flat_folder_has_no_classes(tmp_path: Path) -> None:
    write_picture(tmp_path / "b.png")
    write_picture(tmp_path / "a" / "c.png")
    source = open_folder(tmp_path)
    assert source.labels is None
    assert source.label_of is None
    assert source.read(0).label is None


def test_the_order_is_by_bytes_whatever_the_file_system_gives(tmp_path: Path) -> None:
    names = ["Z.png", "a.png", "é.png", "日本.png", "a-b/x.png", "a/y.png", "10.png", "9.png"]
    for name in names:
        write_picture(tmp_path / name)
    top = sorted((n for n in names if "/" not in n), key=os.fsencode)
    assert keys(open_folder(tmp_path)) == [*top, "a/y.png", "a-b/x.png"]


def test_names_that_are_not_utf8_are_read(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.png"
    try:
        write_picture(tmp_path / "x.png").rename(os.fsdecode(path))
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    source = pickle.loads(pickle.dumps(open_folder(tmp_path)))
    assert source.read(0).image.size == (40, 36)


def test_only_images_count_and_hidden_files_do_not(tmp_path: Path) -> None:
    write_classes(tmp_path, {"cat": 1})
    write_picture(tmp_path / "cat" / "._000.png")
    write_picture(tmp_path / ".cache" / "x.png")
    (tmp_path / "cat" / "notes.txt").write_text("x")
    write_picture(tmp_path / "cat" / "shout.PNG")
    (tmp_path / "empty").mkdir()
    source = open_folder(tmp_path)
    assert keys(source) == ["cat/000.png", "cat/shout.PNG"]
    assert source.labels is not None
    assert source.labels.names == ("cat",)


def test_broken_files_are_members_that_cannot_be_read(tmp_path: Path) -> None:
    write_classes(tmp_path, {"cat": 1})
    bad = write_bad(tmp_path / "cat")
    source = open_folder(tmp_path)
    assert len(source) == 1 + len(bad)
    for index in range(1, len(source)):
        with pytest.raises(ImageError):
            source.read(index)


@pytest.mark.timeout(20)
def test_pipes_and_rings_of_links_hold_nobody_up(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "data", {"cat": 1, "dog/deep": 1})
    os.mkfifo(root / "cat" / "pipe.jpg")
    (root / "cat" / "nothing.jpg").symlink_to("gone.jpg")
    (root / "loop").symlink_to(root)
    (root / "up").symlink_to(tmp_path)
    (root / "cat" / "again").symlink_to(root / "dog")
    (root / "dog" / "deep" / "self").symlink_to(root / "dog" / "deep")
    source = open_folder(root)
    assert keys(source) == [
        "cat/000.png",
        "cat/nothing.jpg",
        "cat/pipe.jpg",
        "dog/deep/000.png",
    ]
    assert source.scan.sizes.tolist()[1:3] == [-1, -1]
    for index in (1, 2):
        with pytest.raises(ImageError):
            source.read(index)


def test_a_class_may_be_a_link_to_elsewhere(tmp_path: Path) -> None:
    elsewhere = write_classes(tmp_path / "all", {"n02084071": 2})
    root = write_classes(tmp_path / "some", {"cat": 1})
    (root / "dog").symlink_to(elsewhere / "n02084071")
    assert keys(open_folder(root)) == ["cat/000.png", "dog/000.png", "dog/001.png"]


def test_splits_are_found(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", {"cat": 2})
    write_classes(tmp_path / "val", {"cat": 1})
    assert len(open_folder(tmp_path)) == 2
    assert len(open_folder(tmp_path, split="val")) == 1
    assert len(open_folder(tmp_path / "val")) == 1
    with pytest.raises(DatasetNotFoundError, match=r"train, val.*'test'"):
        open_folder(tmp_path, split="test")


def test_a_class_called_train_is_no_split(tmp_path: Path) -> None:
    source = open_folder(write_classes(tmp_path, {"train": 1, "bus": 1}))
    assert source.labels is not None
    assert source.labels.names == ("bus", "train")


def test_a_wrong_path_tells_the_nearest(tmp_path: Path) -> None:
    write_classes(tmp_path / "imagenet" / "train", {"cat": 1})
    with pytest.raises(DatasetNotFoundError, match=r"did you mean '.*imagenet'"):
        open_folder(tmp_path / "imagenett" / "train")
    with pytest.raises(DatasetNotFoundError, match="holds: imagenet"):
        open_folder(tmp_path / "quite-else")
    with pytest.raises(DatasetNotFoundError, match="is not a folder"):
        open_folder(tmp_path / "imagenet" / "train" / "cat" / "000.png")
    with pytest.raises(DatasetNotFoundError, match="not a name"):
        open_folder(Path("a\0b"))
    (tmp_path / "bare").mkdir()
    with pytest.raises(DatasetNotFoundError, match=r"holds no images.*\.jpeg"):
        open_folder(tmp_path / "bare")


def test_the_digest_follows_names_sizes_and_classes(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "one", {"cat": 2, "dog": 2})
    first = open_folder(root).digest
    assert open_folder(root).digest == first
    assert open_folder(write_classes(tmp_path / "two", {"cat": 2, "dog": 2})).digest == first
    (root / "cat" / "001.png").write_bytes(b"x" * 5)
    changed = open_folder(root).digest
    (root / "cat" / "001.png").rename(root / "cat" / "002.png")
    renamed = open_folder(root).digest
    assert len({first, changed, renamed}) == 3


def test_a_source_travels_without_what_can_be_made_again(tmp_path: Path) -> None:
    source = open_folder(write_classes(tmp_path, {"cat": 3, "dog": 3}))
    before = len(pickle.dumps(source))
    assert source.digest
    assert source.label_of is not None
    assert not {"label_of", "digest"} & source.__getstate__().keys()
    assert len(pickle.dumps(source)) < before + 300  # the labels keep their digest
    assert pickle.loads(pickle.dumps(source)).digest == source.digest


def test_wnids_are_named_by_the_table_and_by_wordnet(tmp_path: Path) -> None:
    write_classes(tmp_path, {"n02012849": 1, "n03126707": 1, "n01440764": 1, "n02012715": 1})
    source = open_folder(tmp_path, by_wnid=True)
    assert source.labels is not None
    assert source.labels.ids == ("n01440764", "n02012715", "n02012849", "n03126707")
    assert source.labels[0].name == "tench"
    assert source.labels[1].name == "Gruidae"
    assert source.labels[1].synset == "n02012715"
    assert len(set(source.labels.prompts)) == 4
    assert [f.count for f in source.findings] == [0]


def test_two_wnids_of_one_name_get_prompts_of_their_own(tmp_path: Path) -> None:
    from robustzs.hierarchy.noun_index import NounIndex

    cups = [s.wnid for s in NounIndex.load().synsets("mouse") if s.lemmas[0] == "mouse"]
    assert len(cups) > 1
    source = open_folder(write_classes(tmp_path, dict.fromkeys(cups, 1)), by_wnid=True)
    assert source.labels is not None
    assert len({prompt.casefold() for prompt in source.labels.prompts}) == len(cups)


def test_folders_that_are_no_wnids_are_counted(tmp_path: Path) -> None:
    write_classes(tmp_path, {"n01440764": 1, "n99999999": 1, "tmp": 1})
    source = open_folder(tmp_path, by_wnid=True)
    (finding,) = source.findings
    assert (finding.kind, finding.count, finding.total) == ("unresolved-name", 2, 3)
    assert finding.first == ("n99999999", "tmp")


def test_no_wnid_at_all_is_a_mistake(tmp_path: Path) -> None:
    write_classes(tmp_path, {"cat": 1, "dog": 1})
    with pytest.raises(DataError, match="cat, dog"):
        open_folder(tmp_path, by_wnid=True)
    write_picture(tmp_path / "stray.png")
    with pytest.raises(DataError, match=r"stray\.png"):
        open_folder(tmp_path, by_wnid=True)


def test_class_names_that_cannot_be_labels(tmp_path: Path) -> None:
    write_classes(tmp_path, {"Cat": 1, "cat": 1})
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("this file system ignores case")
    with pytest.raises(DataError, match="same name 'cat'"):
        open_folder(tmp_path)


def test_an_image_that_vanishes_is_a_bad_image(tmp_path: Path) -> None:
    source = open_folder(write_classes(tmp_path, {"cat": 1}))
    (tmp_path / "cat" / "000.png").unlink()
    with pytest.raises(ImageError, match="no file"):
        source.read(0)


def test_scanning_many_files_is_quick(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"c{number}").mkdir()
        for other in range(100):
            (tmp_path / f"c{number}" / f"{other}.jpg").touch()
    scan = scan_folder(tmp_path)
    assert len(scan.keys) == 2000
    names, places = scan.top_folders()
    assert len(names) == 20
    assert (places[:100] == 0).all()
