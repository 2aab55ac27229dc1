from __future__ import annotations

import numpy as np
import pytest
import torch
from robustzs_training.caption_features import caption_features, distinct_captions
from robustzs_training.factory import (
    adapter_of,
    build_objective,
    load_model,
    tokenizer_for,
)
from robustzs_training.objectives import FareKl, Hierarchical, QtAftHierarchical
from robustzs_training.recipe import ModelPart
from robustzs_training.recipe_files import builtin_names, load_recipe

from robustzs.errors import RecipeError, UsageError
from tests.training.recipes.small_worlds import (
    CAPTIONS,
    CaptionsOnly,
    examples,
    labels,
    tiny_overrides,
)

CPU = torch.device("cpu")


def _world(folder, name, *changes):
    recipe = load_recipe(name, [*tiny_overrides(folder), *changes])
    source = load_model(recipe.model)
    return recipe, adapter_of(source), tokenizer_for(source)


@pytest.mark.parametrize("name", builtin_names())
def test_every_recipe_takes_a_step(tmp_path, name):
    recipe, model, tokenizer = _world(tmp_path, name)
    objective, to_batch = build_objective(recipe, model, tokenizer, labels())
    batch = to_batch(examples(), CPU)
    objective.begin_(batch)
    batch = objective.prepare(batch)
    perturbed = objective.perturb(
        batch, recipe.threat.build(), recipe.attack.build(recipe.run.seed)
    )
    terms = objective(batch, perturbed)
    terms.total.backward()
    objective.clamp_()
    assert torch.isfinite(terms.total)
    distance = (perturbed["pixels"] - batch.pixels).abs().max()
    assert 0.0 < distance <= recipe.threat.eps + 1e-6
    grown = [n for n, p in objective.trainable().items() if p.grad is not None and p.grad.any()]
    assert any(n.startswith("model.visual.") for n in grown)


def test_labels_follow_their_class_into_the_trees_order(tmp_path):
    recipe, model, tokenizer = _world(tmp_path, "hierarchical-vit-b-32")
    objective, to_batch = build_objective(recipe, model, tokenizer, labels())
    assert isinstance(objective, Hierarchical)
    batch = to_batch(examples(), CPU)
    texts = tokenizer([f"This is a photo of a {label.prompt}" for label in labels()])
    rows = objective.prompt_ids[objective.leaf_rows[batch.labels]]
    expected = torch.as_tensor(np.asarray(texts))[:, : rows.shape[1]]
    assert torch.equal(rows, expected)
    assert not torch.equal(batch.labels, examples().labels)  # or the order would not be tested


def test_kept_caption_features_give_the_same_loss(tmp_path):
    recipe, model, tokenizer = _world(tmp_path, "qt-aft-vit-b-16")
    source = CaptionsOnly((*CAPTIONS, None, CAPTIONS[0]))
    kept = caption_features(model, tokenizer, source, tmp_path / "cache")
    assert kept.features.shape == (4, 24)  # "" and None are one caption
    assert isinstance(kept.features, np.memmap)
    found = []
    for features in (None, kept):
        torch.manual_seed(0)
        objective, to_batch = build_objective(recipe, model, tokenizer, None, captions=features)
        batch = objective.prepare(to_batch(examples(), CPU))
        assert (batch.caption_ids is None) == (features is not None)
        found.append(objective(batch, {"pixels": batch.pixels}).terms["image_to_caption"])
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)


def test_caption_features_are_found_again_and_belong_to_their_tower(tmp_path):
    _, model, tokenizer = _world(tmp_path, "qt-aft-vit-b-16")
    source = CaptionsOnly(CAPTIONS)
    told: list[tuple[int, int]] = []
    first = caption_features(model, tokenizer, source, tmp_path, report=lambda *a: told.append(a))
    assert told == [(4, 4)]
    again = caption_features(model, tokenizer, source, tmp_path, report=lambda *a: told.append(a))
    assert again.path == first.path
    assert len(told) == 1
    with torch.no_grad():
        model.model.visual.proj.add_(1.0)  # another image tower: the same captions
    assert caption_features(model, tokenizer, source, tmp_path).path == first.path
    with torch.no_grad():
        model.model.text_projection.add_(1.0)
    other = caption_features(model, tokenizer, source, tmp_path)
    assert other.path != first.path
    assert not np.allclose(other.features, first.features)
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".json", ".npy", ".npy"]


def test_captions_are_counted_once(tmp_path):
    captions, rows = distinct_captions(CaptionsOnly(("b", "a", None, "b", "")))
    assert captions == ["b", "a", ""]
    assert rows.tolist() == [0, 1, 2, 0, 2]


def test_both_halves_of_the_joint_objective_have_their_options(tmp_path):
    recipe, model, tokenizer = _world(
        tmp_path,
        "qt-aft-hierarchical-vit-b-32",
        "objective.tree_weight=0.5",
        "objective.captions.caption_weight=3",
        "objective.tree.n_levels=2",
        "objective.tree.text_eps=null",
    )
    objective, _ = build_objective(recipe, model, tokenizer, labels())
    assert isinstance(objective, QtAftHierarchical)
    assert objective.tree_weight == 0.5
    assert objective.captions.caption_weight == 3.0
    assert objective.tree.options.n_levels == 2
    assert objective.tree.options.text_eps is None


def test_data_without_classes(tmp_path):
    recipe, model, tokenizer = _world(tmp_path, "agft")
    with pytest.raises(UsageError, match="agft needs classes"):
        build_objective(recipe, model, tokenizer, None)
    recipe, model, tokenizer = _world(tmp_path, "fare")
    _, to_batch = build_objective(recipe, model, tokenizer, None)
    batch = to_batch(examples(), CPU)
    assert batch.labels is None
    assert batch.caption_ids is None
    assert float(batch.pixels.max()) <= 1.0


def test_classes_may_be_others_than_the_datas(tmp_path):
    recipe, model, tokenizer = _world(tmp_path, "agft", "objective.classes='cat,dog,oak'")
    objective, to_batch = build_objective(recipe, model, tokenizer, None)
    assert objective.classes.shape[0] == 3
    assert to_batch(examples(), CPU).labels is None
    own, _ = build_objective(recipe, model, tokenizer, labels())
    assert torch.equal(own.classes, objective.classes), "those that were asked for win"
    recipe, model, tokenizer = _world(
        tmp_path, "agft", "objective={name: fare-kl, classes: imagenet-1k, kl_weight: 3}"
    )
    objective, _ = build_objective(recipe, model, tokenizer, None)
    assert isinstance(objective, FareKl)
    assert objective.classes.shape[0] == 1000
    assert objective.kl_weight == 3.0


def test_what_learns_from_labels_has_no_other_classes(tmp_path):
    with pytest.raises(RecipeError, match=r"objective\.classes is no key"):
        _world(tmp_path, "tecoa", "objective.classes=imagenet-1k")


def test_hierarchical_wants_one_sentence(tmp_path):
    recipe, model, tokenizer = _world(tmp_path, "hierarchical-vit-b-32", "data.template=openai-7")
    with pytest.raises(RecipeError, match="no single sentence"):
        build_objective(recipe, model, tokenizer, labels())


def test_random_weights_follow_the_seed(tmp_path):
    from tests.training.recipes.small_worlds import write_tiny

    part = ModelPart(source=write_tiny(tmp_path), pretrained="random", resize="qt-aft")
    first, same, other = (load_model(part, seed=seed).model.state_dict() for seed in (1, 1, 2))
    name = "visual.conv1.weight"
    assert torch.equal(first[name], same[name])
    assert not torch.equal(first[name], other[name])
    assert load_model(part).preprocess.resize_size == round(32 * 256 / 224)
    assert "random" in load_model(part).notes[0]


def test_a_bundle_is_a_model_too():
    source = load_model(ModelPart(source="robustzs-lite-clean"))
    assert source.manifest is not None
    assert source.manifest.name == "robustzs-lite-clean"
