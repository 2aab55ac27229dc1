"""Evaluation sets out of folders, tables, shards and named data: labels, subsets, digests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from robustzs_training.evaluation.base import Victim
from robustzs_training.evaluation.sets import SourceSet, open_set, resize_inside
from robustzs_training.evaluation.sets.opening import FASHION_MNIST

from robustzs.errors import (
    DataError,
    DatasetNotFoundError,
    TooManyBadSamplesError,
    UsageError,
)
from robustzs.images.preprocess import PreprocessConfig, preprocess
from robustzs.labels import LabelSet
from tests.training.data.picture_folders import picture, write_bad, write_classes, write_picture
from tests.training.data.shard_files import image_bytes, write_shard

RULE = PreprocessConfig(image_size=(32, 32))
HAS_FASHION_MNIST = Path(FASHION_MNIST).is_dir()


def opened(spec: Path | str, cache: Path, **more: Any) -> SourceSet:
    return open_set(spec, preprocess=RULE, cache=cache, **more)


def table(folder: Path, lines: list[str], name: str = "data.csv") -> Path:
    for number in range(6):
        write_picture(folder / f"{number}.png", number)
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_table_of_labels_at_any_depth_is_asked_among_imagenets(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        ["path,label", "0.png,dog", "1.png,golden retriever", "2.png,n02084071", "3.png,bird.n.01"],
    )
    images = opened(path, tmp_path)
    assert images.keys == ("0.png", "1.png", "2.png", "3.png")
    assert images.truth == ("n02084071", "n02099601", "n02084071", "n01503061")
    assert images.right.sum(axis=1).tolist() == [118, 1, 118, 59]
    assert images.labels.digest == LabelSet.imagenet1k().digest
    assert images.right[1, images.labels.index("n02099601")]
    assert not images.right.flags.writeable
    assert images.name == "data"


def test_pixels_are_those_of_the_models_own_rule(tmp_path: Path) -> None:
    images = opened(table(tmp_path, ["0.png,dog", "1.png,cat"]), tmp_path)
    pixels = images.pixels(np.array([1, 0, 1]))
    assert pixels.shape == (3, 3, 32, 32)
    assert pixels.dtype == torch.float32
    expected = preprocess(picture(1), RULE)
    assert np.array_equal(pixels[0].numpy(), expected)
    assert torch.equal(pixels[0], pixels[2])


def test_labels_without_a_right_one_are_counted_named_and_left_out(tmp_path: Path) -> None:
    lines = ["0.png,dog", "1.png,quark.n.01", "2.png,cathedral.n.01", "3.png,quark.n.01"]
    images = opened(table(tmp_path, lines), tmp_path)
    assert images.keys == ("0.png", "2.png")
    about = dict(images.description)
    assert about["without_a_right_label"] == {"n": 2, "labels": {"quark.n.01": 2}}
    assert about["right_above"] == {"cathedral.n.01": "n03028079"}
    assert (about["n"], about["n_available"]) == (2, 2)
    assert any("dog.n.01" in note for note in about["senses"])
    json.dumps(about, allow_nan=False)
    with pytest.raises(DataError, match=r"none of its 1 labels is right.*labels=own"):
        opened(table(tmp_path, ["1.png,quark.n.01"]), tmp_path)


def test_labels_that_mean_nothing_are_all_told_with_their_lines(tmp_path: Path) -> None:
    lines = ["path,label", "0.png,dgo", "1.png,dog", "2.png,dog.n.77", "3.png,dgo"]
    with pytest.raises(DataError) as caught:
        opened(table(tmp_path, lines), tmp_path)
    message = str(caught.value)
    assert "2 problems" in message
    assert "line 2: 'dgo' is neither a label nor a noun of WordNet 3.0 (2 pictures)" in message
    assert "line 4: WordNet 3.0 has no noun sense 'dog.n.77'" in message


def test_own_labels_and_given_ones(tmp_path: Path) -> None:
    path = table(tmp_path, ["0.png,blorb", "1.png,snark", "2.png,blorb"])
    own = opened(path, tmp_path, labels="own")
    assert own.labels.names == ("blorb", "snark")
    assert own.right.tolist() == [[True, False], [False, True], [True, False]]
    given = LabelSet.from_names(["snark", "something else", "Blorb"])
    asked = opened(path, tmp_path, labels=given)
    assert asked.right.argmax(axis=1).tolist() == [2, 0, 2]
    assert asked.labels.digest == given.digest
    with pytest.raises(UsageError, match="labels are 'mine'"):
        opened(path, tmp_path, labels="mine")


def test_a_folder_of_names_and_one_of_wnids_mean_the_same(tmp_path: Path) -> None:
    names = write_classes(tmp_path / "names", {"dog": 2, "golden_retriever": 1})
    wnids = write_classes(tmp_path / "wnids", {"n02084071": 2, "n02099601": 1})
    by_name, by_wnid = opened(names, tmp_path), opened(wnids, tmp_path)
    assert by_name.truth == by_wnid.truth == ("n02084071", "n02084071", "n02099601")
    assert np.array_equal(by_name.right, by_wnid.right)
    own = opened(wnids, tmp_path, labels="own")
    assert own.labels.ids == ("n02084071", "n02099601")
    assert own.labels.names == ("dog", "Golden Retriever")


def test_a_folder_without_classes_and_one_with_unknown_ones(tmp_path: Path) -> None:
    write_picture(tmp_path / "flat" / "a.png")
    with pytest.raises(DataError, match=r"have no labels.*path,label"):
        opened(tmp_path / "flat", tmp_path)
    write_classes(tmp_path / "odd", {"dog": 1, "zzyzx_9": 1})
    with pytest.raises(DataError, match=r"folder 'zzyzx_9'.*labels=own"):
        opened(tmp_path / "odd", tmp_path)
    with pytest.raises(DatasetNotFoundError):
        opened(tmp_path / "not-there", tmp_path)


def test_the_held_out_split_is_taken_where_there_are_splits(tmp_path: Path) -> None:
    write_classes(tmp_path / "set" / "train", {"dog": 3})
    write_classes(tmp_path / "set" / "val", {"dog": 2, "cat": 1})
    assert len(opened(tmp_path / "set", tmp_path)) == 3
    assert len(opened(tmp_path / "set", tmp_path, split="train")) == 3
    assert opened(tmp_path / "set", tmp_path).keys[0] == "cat/000.png"


def test_imagenet_v2s_numbered_folders_are_its_classes(tmp_path: Path) -> None:
    root = tmp_path / "v2"
    source = write_picture(tmp_path / "one.png", size=(8, 8))
    for number in range(1000):
        (root / str(number)).mkdir(parents=True)
        if number in (0, 207, 999):
            shutil.copy(source, root / str(number) / "a.png")
        else:
            (root / str(number) / "a.png").symlink_to(source)
    images = opened(root, tmp_path, labels="own", n=5)
    number = int(images.keys[0].split("/")[0])
    assert images.truth[0] == LabelSet.imagenet1k().ids[number]
    assert len(images.labels) == 1000


def test_a_subset_is_fixed_by_its_seed(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "set", {"dog": 8, "cat": 8})
    first, again = (opened(folder, tmp_path, n=5, seed=3) for _ in range(2))
    other, whole = opened(folder, tmp_path, n=5, seed=4), opened(folder, tmp_path)
    assert first.keys == again.keys == tuple(sorted(first.keys))
    assert first.digest == again.digest
    assert first.keys != other.keys
    assert first.digest != other.digest
    assert (len(whole), len(first), first.n_available) == (16, 5, 16)
    assert (first.description["sampling"], whole.description["sampling"]) == ("numpy", "all")
    assert opened(folder, tmp_path, n=99).digest == whole.digest
    with pytest.raises(UsageError, match="n is 0"):
        opened(folder, tmp_path, n=0)


def test_the_digest_is_of_names_truths_labels_and_bytes(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "set", {"dog": 2, "cat": 2})
    before = opened(folder, tmp_path)
    assert before.digest == opened(folder, tmp_path).digest
    rule = PreprocessConfig(image_size=(16, 16))
    assert open_set(folder, preprocess=rule, cache=tmp_path).digest == before.digest
    assert opened(folder, tmp_path, labels="own").digest != before.digest
    write_picture(folder / "dog" / "001.png", 77)
    changed = opened(folder, tmp_path)
    assert changed.digest != before.digest
    (folder / "dog" / "001.png").rename(folder / "cat" / "001b.png")
    assert opened(folder, tmp_path).digest not in (before.digest, changed.digest)


def test_a_few_broken_pictures_are_left_out_and_many_are_too_many(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "set", {"dog": 120})
    write_bad(folder / "dog", ["text"])
    images = opened(folder, tmp_path)
    assert len(images) == len(images.keys) == len(images.truth) == len(images.right) == 120
    assert list(images.description["unreadable"]) == ["dog/zz-text.jpg"]
    write_bad(folder / "dog", ["empty", "cut"])
    with pytest.raises(TooManyBadSamplesError, match="3 of 123 pictures cannot be read"):
        opened(folder, tmp_path)


def test_a_picture_that_goes_away_later_is_named(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "set", {"dog": 2})
    images = opened(folder, tmp_path)
    (folder / "dog" / "001.png").unlink()
    with pytest.raises(DataError, match=r"'dog/001.png' cannot be used"):
        images.pixels(np.array([0, 1]))


def test_shards_with_their_own_class_names(tmp_path: Path) -> None:
    root = tmp_path / "wds_small"
    for shard in range(2):
        examples = [
            {"__key__": f"s{i:07d}", "png": image_bytes(10 * shard + i), "cls": str(i % 2).encode()}
            for i in range(4)
        ]
        write_shard(root / "test" / f"{shard}.tar", examples)
    (root / "classnames.txt").write_text("a dog\na cat\n")
    images = opened(root, tmp_path / "cache")
    assert images.labels.names == ("a dog", "a cat")
    assert images.right.argmax(axis=1).tolist() == [0, 1] * 4
    assert images.name == "wds_small"
    spec = f"webdataset:{root}/test/{{0..1}}.tar"
    assert opened(spec, tmp_path / "cache").digest == images.digest


def test_native_pixels_and_the_resize_inside_the_victim(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "set", {"dog": 3})
    model = open_set(folder, preprocess=PreprocessConfig(image_size=(64, 64)), cache=tmp_path)
    native = open_set(
        folder,
        preprocess=PreprocessConfig(image_size=(64, 64)),
        cache=tmp_path,
        resolution="native",
    )
    pixels = native.pixels(np.arange(3))
    assert pixels.shape == (3, 3, 36, 40)
    whole = np.asarray(picture(1)).transpose(2, 0, 1)
    assert np.array_equal((pixels[0].numpy() * 255.0).round().astype(np.uint8), whole)
    assert native.digest == model.digest
    assert (model.inside_resize, native.inside_resize) == (None, (64, 64))
    assert native.description["perturbed"] == "native pixels, before the resize"
    assert model.description["perturbed"] == "model input, after the resize"
    with pytest.raises(DataError, match="40 x 36 pixels, the model's input 32 x 36"):
        open_set(
            folder,
            preprocess=PreprocessConfig(image_size=(36, 32)),
            cache=tmp_path,
            resolution="native",
        )
    write_picture(folder / "dog" / "odd.png", 5, size=(50, 36))
    with pytest.raises(DataError, match="need one size"):
        opened(folder, tmp_path, resolution="native")


def test_a_victim_with_the_resize_inside_gets_its_gradient_through_it() -> None:
    def features(pixels: torch.Tensor) -> torch.Tensor:
        assert pixels.shape[2:] == (8, 8)
        return pixels.flatten(1)

    victim = Victim(
        logits_of=lambda pixels: features(pixels)[:, :5],
        image_features_of=features,
        logits_for=lambda texts: lambda pixels: features(pixels)[:, : len(texts)],
        device=torch.device("cpu"),
    )
    wrapped = resize_inside(victim, (8, 8))
    pixels = torch.rand(2, 3, 4, 4, requires_grad=True)
    expected = torch.nn.functional.interpolate(pixels, size=(8, 8), mode="bicubic")
    assert torch.equal(wrapped.image_features_of(pixels), expected.flatten(1))
    assert wrapped.logits_for(["a", "b"])(pixels).shape == (2, 2)
    wrapped.logits_of(pixels).sum().backward()
    assert pixels.grad is not None
    assert float(pixels.grad.abs().sum()) > 0.0


@pytest.mark.skipif(not HAS_FASHION_MNIST, reason="dataset-fashion-mnist is not installed")
def test_fashion_mnist_of_debian(tmp_path: Path) -> None:
    images = opened("fashion-mnist", tmp_path, n=40)
    assert images.name == "fashion-mnist"
    assert len(images.labels) == 10
    assert images.n_available == 10_000
    assert images.pixels(np.array([0])).shape == (1, 3, 32, 32)
    asked = opened(f"fashion-mnist:{FASHION_MNIST}", tmp_path, n=40)
    assert asked.digest == images.digest


def test_what_is_missing_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match="apt install dataset-fashion-mnist"):
        opened(f"fashion-mnist:{tmp_path / 'nothing'}", tmp_path)
    with pytest.raises(DatasetNotFoundError, match=r"there is no table .*nothing\.csv"):
        opened(tmp_path / "nothing.csv", tmp_path)
