"""Tiny-ImageNet as it is unpacked: images a folder deeper, and a validation split by a list."""

from __future__ import annotations

from pathlib import Path

import pytest
from robustzs_training.data.annotations import ANNOTATIONS
from robustzs_training.data.build import build_source
from robustzs_training.data.folders import open_folder
from robustzs_training.evaluation.heldout import heldout_of
from robustzs_training.recipe_files import load_recipe
from robustzs_training.request import TrainRequest

from robustzs.errors import DataError
from tests.training.data.picture_folders import RULE, write_picture

# Of Tiny-ImageNet's 200.
WNIDS = ("n01443537", "n02099601", "n02123045")
# Not in the order of the names: a place in the folder says nothing of the class.
VAL = {
    "val_0.JPEG": WNIDS[2],
    "val_1.JPEG": WNIDS[0],
    "val_2.JPEG": WNIDS[1],
    "val_3.JPEG": WNIDS[2],
}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """``tiny-imagenet-200`` with three classes; pictures of 64 pixels, as there."""
    root = tmp_path / "tiny-imagenet-200"
    seed = 0
    for wnid in WNIDS:
        for number in range(2):
            seed += 1
            write_picture(
                root / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", seed, (64, 64)
            )
        boxes = "".join(f"{wnid}_{number}.JPEG\t0\t10\t63\t58\n" for number in range(2))
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text(boxes)
    for name in VAL:
        seed += 1
        write_picture(root / "val" / "images" / name, seed, (64, 64))
    lines = [f"{name}\t{wnid}\t0\t32\t44\t62" for name, wnid in VAL.items()]
    (root / "val" / ANNOTATIONS).write_text("\n".join(lines) + "\n")
    write_picture(root / "test" / "images" / "test_0.JPEG", 99, (64, 64))
    (root / "wnids.txt").write_text("\n".join(WNIDS) + "\n")
    (root / "words.txt").write_text("n01443537\tgoldfish, Carassius auratus\n")
    return root


def test_the_training_split_is_class_folders(tiny: Path) -> None:
    source = open_folder(tiny, by_wnid=True)
    assert source.labels is not None
    assert source.labels.names == ("goldfish", "Golden Retriever", "tabby cat")
    assert source.label_of is not None
    assert source.label_of.tolist() == [0, 0, 1, 1, 2, 2]
    sample = source.read(2)
    assert sample.key == "n02099601/images/n02099601_0.JPEG"
    assert sample.image.size == (64, 64)


@pytest.mark.parametrize("by_wnid", [True, False])
def test_the_validation_split_has_the_classes_of_its_list(tiny: Path, by_wnid: bool) -> None:
    source = open_folder(tiny, split="val", by_wnid=by_wnid)
    train = open_folder(tiny, by_wnid=True)
    assert source.labels is not None
    assert train.labels is not None
    assert source.labels.ids == train.labels.ids
    assert source.label_of is not None
    assert source.label_of.tolist() == [2, 0, 1, 2]
    assert source.read(1).label == 0
    assert [finding.count for finding in source.findings] == [0]
    given_itself = open_folder(tiny / "val", by_wnid=by_wnid)
    assert given_itself.digest == source.digest


def test_a_recipe_trains_on_the_one_and_measures_on_the_other(tiny: Path) -> None:
    request = TrainRequest(recipe="tga-zsr", output=tiny / "out", data=str(tiny))
    recipe = request.resolve()
    assert recipe.data.source == "wnid-folder"
    data = build_source(recipe.data, cache=tiny / "cache")
    assert len(data) == 6
    assert recipe.evaluate is not None
    found = heldout_of(recipe.evaluate, recipe.data, RULE, cache=tiny / "cache")
    assert found is not None
    assert found.labels.tolist() == [2, 0, 1, 2]
    assert found.classes.names == ("goldfish", "Golden Retriever", "tabby cat")


def test_the_list_may_be_named_for_another_recipe(tiny: Path) -> None:
    recipe = load_recipe("quickstart", [f"evaluate.path={tiny}"])
    assert recipe.evaluate is not None
    found = heldout_of(recipe.evaluate, recipe.data, RULE, cache=tiny / "cache")
    assert found is not None
    assert found.labels.tolist() == [2, 0, 1, 2]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("val_0.JPEG\tn02123045\n", "has no line for 'images/val_1.JPEG'"),
        ("val_0.JPEG n02123045\n", "line 1: 'val_0.JPEG n02123045' is no name and wnid"),
        ("val_0.JPEG\tn02123045\nval_0.JPEG\tn01443537\n", "line 2: 'val_0.JPEG' is n01443537"),
        ("val_0.JPEG\t\xff\n", "cannot be read"),
        ("", "has no line for 'images/val_0.JPEG'"),
    ],
)
def test_a_list_that_is_none_is_refused(tiny: Path, text: str, expected: str) -> None:
    (tiny / "val" / ANNOTATIONS).write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError) as caught:
        open_folder(tiny, split="val")
    assert expected in caught.value.message
    assert caught.value.hint
