"""Protocols of papers: what they ask for, what lies on disk, and how it is opened."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from robustzs_training.evaluation.attacks import ATTACKS, build_attack
from robustzs_training.evaluation.attacks.ensemble import Ensemble
from robustzs_training.evaluation.presets import (
    PRESETS,
    get_preset,
    missing_text,
    open_preset_set,
    present,
    templates_for,
)
from robustzs_training.evaluation.sets.catalogue import CATALOGUE
from robustzs_training.evaluation.sets.published_names import (
    as_tecoa,
    published_templates,
    with_published_names,
)

from robustzs.errors import (
    DataError,
    DatasetNotFoundError,
    DuplicateLabelError,
    TemplateError,
    UsageError,
)
from robustzs.images.config import PreprocessConfig
from robustzs.labels import LabelSet
from robustzs.labels.templates import get_templates
from robustzs.threat import ThreatModel, parse_size
from tests.training.data.picture_folders import write_classes, write_picture
from tests.training.evaluation.published_shards import write_shards

MODEL_RULE = PreprocessConfig(image_size=(224, 224))


def test_the_lists_are_those_of_the_papers() -> None:
    sizes = {name: (len(preset.datasets), preset.n) for name, preset in PRESETS.items()}
    assert sizes == {"fare": (14, 1000), "qt-aft": (19, 1000), "tecoa": (17, None)}
    for preset in PRESETS.values():
        assert len(set(preset.datasets)) == len(preset.datasets)
        assert set(preset.datasets) <= set(CATALOGUE)
        assert set(preset.not_zero_shot) <= set(preset.datasets)
        assert set(preset.native) <= set(preset.datasets)
    assert set(PRESETS["fare"].datasets) < set(PRESETS["qt-aft"].datasets)
    missing_here = set(PRESETS["tecoa"].datasets) - set(PRESETS["qt-aft"].datasets)
    assert missing_here == {"country211", "hateful_memes", "caltech256"}


def test_every_attack_of_a_preset_can_be_built() -> None:
    for preset in PRESETS.values():
        assert any(attack.verdict for attack in preset.attacks)
        for setting in preset.attacks:
            assert setting.name in ATTACKS
            assert setting.ensemble is None or setting.ensemble in get_args(Ensemble)
            for eps in setting.eps:
                attack = build_attack(
                    setting.name,
                    ThreatModel.parse(eps),
                    n_steps=setting.n_steps,
                    n_restarts=setting.n_restarts,
                    step_size=None if setting.step_size is None else parse_size(setting.step_size),
                    momentum=setting.momentum,
                    rescale=setting.rescale,
                    ensemble=setting.ensemble or "fare",
                )
                assert attack.name == setting.name


@pytest.mark.parametrize(
    ("name", "n_steps", "eps"), [("qt-aft", 10, "4/255"), ("tecoa", 100, "1/255")]
)
def test_pgd_of_papers_has_no_momentum_and_sees_logits_as_deployed(
    name: str, n_steps: int, eps: str
) -> None:
    (setting,) = [each for each in get_preset(name).attacks if each.name == "pgd"]
    attack = build_attack(
        "pgd",
        ThreatModel.parse(eps),
        n_steps=setting.n_steps,
        step_size=parse_size(setting.step_size or ""),
        momentum=setting.momentum,
        rescale=setting.rescale,
    )
    assert setting.eps == (eps,)
    wanted = {"n_steps": n_steps, "step_size": "1/255", "momentum": 0.0, "logits": "as deployed"}
    assert {key: attack.protocol[key] for key in wanted} == wanted
    assert build_attack("pgd", ThreatModel.parse(eps)).protocol["momentum"] == 0.9


def test_names_of_presets() -> None:
    assert get_preset("FARE") is PRESETS["fare"]
    assert get_preset("qt_aft").name == "qt-aft"
    with pytest.raises(UsageError, match="choose from fare, qt-aft, tecoa"):
        get_preset("pgd")


def test_resizes_are_those_of_the_papers() -> None:
    assert get_preset("fare").preprocess(MODEL_RULE) is MODEL_RULE
    rule = get_preset("qt-aft").preprocess(MODEL_RULE)
    assert (rule.image_size, rule.resize_size, rule.interpolation) == ((224, 224), 256, "bilinear")
    larger = get_preset("tecoa").preprocess(PreprocessConfig(image_size=(336, 336)))
    assert (larger.image_size, larger.resize_size) == ((336, 336), 384)


def test_a_resize_is_torchvisions() -> None:
    from torchvision import transforms

    from robustzs.images.preprocess import preprocess

    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (300, 411, 3), dtype=np.uint8))
    theirs = transforms.Compose(
        [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()]
    )(image)
    ours = preprocess(image, get_preset("qt-aft").preprocess(MODEL_RULE))
    assert torch.equal(torch.from_numpy(ours), theirs)


def test_what_is_on_disk_is_found_and_the_rest_is_told(tmp_path: Path) -> None:
    write_shards(tmp_path, "wds_vtab-cifar10", ["airplane", "automobile"])
    write_classes(tmp_path / "imagenet" / "val", {"n01440764": 2, "n01443537": 1})
    write_picture(tmp_path / "food-101" / "images" / "pie.jpg")
    preset = get_preset("qt-aft")
    found, missing = present(preset, tmp_path)
    specs = {each.dataset.name: each.spec for each in found}
    assert specs == {
        "cifar10": f"webdataset:{tmp_path}/wds_vtab-cifar10",
        "food101": f"torchvision:Food101:{tmp_path}",
        "imagenet1k": f"folder:{tmp_path}/imagenet",
    }
    assert len(found) + len(missing) == 19
    text = missing_text(missing)
    assert len(text.splitlines()) == 16
    assert "clip-benchmark/wds_vtab-dtd --local-dir ROOT/wds_vtab-dtd" in text
    for dataset in CATALOGUE.values():
        assert "ROOT/" in dataset.how_to_get


def test_a_root_without_any_says_how_to_get_them_all(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError) as caught:
        present(get_preset("fare"), tmp_path)
    assert "none of the 14 data sets" in caught.value.message
    assert len(caught.value.hint.splitlines()) == 14
    with pytest.raises(DatasetNotFoundError, match="there is no folder"):
        present(get_preset("fare"), tmp_path / "nothing")


def test_fare_on_shards_native_with_the_templates_beside_them(tmp_path: Path) -> None:
    write_shards(tmp_path, "wds_vtab-cifar10", ["airplane", "automobile"], n=9)
    preset = get_preset("fare")
    (here,), _ = present(preset, tmp_path)
    images = open_preset_set(preset, here, preprocess=MODEL_RULE, cache=tmp_path / "c", n=4)
    assert (images.name, images.inside_resize) == ("cifar10", (224, 224))
    assert images.pixels(np.arange(4)).shape == (4, 3, 32, 32)
    assert images.labels.names == ("airplane", "automobile")
    assert images.description["sampling"] == "robustvlm"
    templates = templates_for(preset, here)
    assert templates.templates == ("a blurry photo of a {}.", "a photo of the {}.")
    assert templates_for(get_preset("qt-aft"), here).templates == ("This is a photo of a {}",)


def test_tecoa_on_a_folder_of_imagenet(tmp_path: Path) -> None:
    write_classes(tmp_path / "imagenet" / "val", {"n01440764": 2, "n01443537": 1})
    preset = get_preset("tecoa")
    (here,), _ = present(preset, tmp_path)
    images = open_preset_set(preset, here, preprocess=MODEL_RULE, cache=tmp_path)
    assert images.truth == ("n01440764", "n01440764", "n01443537")
    assert images.inside_resize is None
    assert images.labels.prompts == ("tench", "goldfish")
    assert images.description["preprocess"]["resize_size"] == 256


def test_names_as_tecoa_refines_them() -> None:
    labels = LabelSet.from_names(["Fu-Manchu", "A380/B_52", "plain"])
    assert as_tecoa(labels).names == ("fu manchu", "a380 b 52", "plain")
    assert as_tecoa(labels).ids == labels.ids


def test_shards_of_imagenet_may_name_two_pairs_alike(tmp_path: Path) -> None:
    """As the published list does: two missiles, two sunglasses."""
    names = [label.prompt for label in LabelSet.imagenet1k()]
    names[names.index("projectile")] = "missile"
    write_shards(tmp_path, "wds_imagenet1k", names, n=3)
    preset = get_preset("qt-aft")
    (here,), _ = present(preset, tmp_path)
    images = open_preset_set(preset, here, preprocess=MODEL_RULE, cache=tmp_path / "c")
    assert images.labels.ids == LabelSet.imagenet1k().ids
    names[0] = names[1]
    write_shards(tmp_path / "other", "wds_imagenet1k", ["a", "a", "b"], n=3)
    (here,), _ = present(preset, tmp_path / "other")
    with pytest.raises(DuplicateLabelError, match="the same name 'a'"):
        open_preset_set(preset, here, preprocess=MODEL_RULE, cache=tmp_path / "c")


def test_published_templates_are_there_for_every_set() -> None:
    counts = {name: len(published_templates(dataset.key)) for name, dataset in CATALOGUE.items()}
    wanted = {"cifar10": 18, "cars": 8, "caltech101": 34, "dtd": 8, "pcam": 2, "eurosat": 3}
    assert {name: counts[name] for name in wanted} == wanted
    assert min(counts.values()) >= 1
    ours = get_templates("openai-imagenet-80")
    assert published_templates("imagenet1k").templates == ours.templates
    with pytest.raises(TemplateError, match="no templates for 'nothing'"):
        published_templates("nothing")


def test_published_names_take_the_place_of_own_ones() -> None:
    own = LabelSet.from_names(["AnnualCrop", "Forest", *(f"c{i}" for i in range(8))])
    renamed = with_published_names(own, "eurosat")
    assert renamed.names[:2] == ("annual crop land", "forest")
    assert renamed.ids == own.ids
    without_background = LabelSet.from_names([f"c{i}" for i in range(101)])
    assert "background" not in with_published_names(without_background, "caltech101").names
    with pytest.raises(DataError, match="10 class names for 'eurosat', and the data 2"):
        with_published_names(LabelSet.from_names(["a", "b"]), "eurosat")
