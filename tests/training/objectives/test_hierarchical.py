"""The hierarchical objective, one tree and a forest, against its float64 derivation."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from robustzs_training.adapter import ClipAdapter
from robustzs_training.geometry import feasible_margin
from robustzs_training.objectives import (
    Batch,
    Hierarchical,
    HierarchicalOptions,
    QtAft,
    QtAftHierarchical,
)
from torch.func import functional_call

from robustzs import scoring
from robustzs.bundle.manifest import Geometry
from robustzs.errors import UsageError
from robustzs.hierarchy.forest import Forest
from robustzs.threat import AttackConfig, ThreatModel
from tests.training.objectives import derived
from tests.training.objectives.derived import array
from tests.training.tiny_models import (
    ANIMALS,
    SIZES,
    make_adapter,
    make_hf_adapter,
    make_pixels,
    make_tokens,
    make_tree,
    tokenize,
)

LEAVES = make_tree(ANIMALS).leaf_ids
LABELS = [0, 1, 0, 2, 4, 6]
TREES = {"one": (ANIMALS,), "forest": (ANIMALS, SIZES)}


def make_objective(trees: str = "one", *, hf: Any = None, **options: Any) -> Hierarchical:
    model = hf or make_adapter()
    forest = Forest(tuple(make_tree(t, f"tree{i}") for i, t in enumerate(TREES[trees])))
    chosen = HierarchicalOptions(**{"n_levels": 3, **options})
    objective = Hierarchical.from_hierarchy(model, forest, tokenize, template="{}", options=chosen)
    with torch.no_grad():  # unequal scales, and a sharper contrast
        objective.log_image_scale += 0.3
        objective.log_text_scale -= 0.2
        objective.log_logit_scale.fill_(1.1)
    return objective.double().train()


def make_batch(objective: Any, size: int = 16) -> tuple[Batch, dict[str, torch.Tensor]]:
    pixels = make_pixels(len(LABELS), size).double()
    batch = Batch(pixels=pixels, labels=torch.tensor(LABELS), caption_ids=make_tokens(len(LABELS)))
    generator = torch.Generator().manual_seed(4)
    noise = torch.rand(pixels.shape, generator=generator)
    perturbed = {"pixels": (pixels + 0.05 * noise).clamp(0, 1)}
    tree = objective if isinstance(objective, Hierarchical) else objective.tree
    if tree.options.text_eps is not None:
        shape = (*tree.prompt_ids.shape, tree.model.text_width)
        perturbed["prompts"] = 0.02 * torch.randn(shape, generator=generator).double()
    return objective.prepare(batch), perturbed


def derive(objective: Hierarchical, perturbed: dict[str, torch.Tensor], trees: str) -> list[Any]:
    """Terms of each tree, from raw features of the model alone."""
    model, r = objective.model, objective.options.curvature
    images = array(model.image_features(perturbed["pixels"]))
    table = objective.prompt_ids
    texts = array(model.text_features(table, perturbation=perturbed.get("prompts")))
    image_scale, text_scale, scale = (
        float(p.detach().exp())
        for p in (objective.log_image_scale, objective.log_text_scale, objective.log_logit_scale)
    )
    phi = [derived.lift(image_scale * z, r) for z in images]
    nodes = list(LEAVES) + sorted({n for t in TREES[trees] for n in t} - set(LEAVES))
    rows = {tuple(row): i for i, row in enumerate(table.tolist())}
    width = table.shape[1]
    psi = {
        node: derived.lift(text_scale * texts[rows[tuple(ids.tolist())]], r)
        for node, ids in zip(nodes, tokenize(nodes)[:, :width], strict=True)
        if tuple(ids.tolist()) in rows
    }
    settings = {
        "n_levels": objective.options.n_levels,
        "r": r,
        "scale": scale,
        "gap": objective._zeta_gap(),
        "radius": objective.options.vicinity_radius,
    }
    return [
        derived.tree_terms(parents, LEAVES, LABELS, phi, psi, **settings)
        for parents in TREES[trees]
    ]


@pytest.mark.parametrize("trees", ["one", "forest"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n_levels": 5, "curvature": 0.4, "text_eps": None},
        {"curvature": 2.0, "vicinity_radius": 0.1, "gap": 0.4, "gap_weight": 3.0},
        {"intra_gap": "levels", "vicinity_weight": 2.0},
    ],
)
def test_values_are_the_derived_ones(trees: str, options: dict[str, Any]) -> None:
    objective = make_objective(trees, **options)
    batch, perturbed = make_batch(objective)
    found = derive(objective, perturbed, trees)
    intra = "gap_intra_levels" if options.get("intra_gap") == "levels" else "gap_intra"
    contrast = sum(tree["contrast"] for tree in found)
    total = contrast + sum(
        objective.options.vicinity_weight * tree["vicinity"]
        + objective.options.gap_weight * (tree["gap_label"] + tree[intra])
        for tree in found
    )
    with torch.no_grad():
        attack = objective.attack_loss(batch, perturbed)
        terms = objective(batch, perturbed)
    assert float(attack) == pytest.approx(contrast, rel=1e-6)
    assert float(terms.total) == pytest.approx(total, rel=1e-6)
    for level in range(objective.options.n_levels + 1):
        ce = np.mean([tree["ces"][level] for tree in found])
        assert float(terms.terms[f"ce_level_{level}"]) == pytest.approx(ce, rel=1e-6, abs=1e-9)
    assert float(terms.terms["gap_label"]) > 0
    assert float(terms.terms["vicinity"]) > 0


def test_every_level_has_its_margin_below_the_feasible_one() -> None:
    objective = make_objective()
    batch, perturbed = make_batch(objective)
    with torch.no_grad():
        terms = objective(batch, perturbed).terms
        scale = float(objective.log_logit_scale.exp())
        image_scale = float(objective.log_image_scale.exp())
        images = array(objective.model.image_features(perturbed["pixels"]))
    points = [derived.lift(image_scale * z, 1.0) for z in images]
    eta = torch.tensor(np.mean([np.linalg.norm(p) for p in points]))
    wanted = scale * float(feasible_margin(eta, 1.0))
    assert float(terms["feasible_margin_level_0"]) == pytest.approx(wanted, rel=1e-6)
    feasible = [float(terms[f"feasible_margin_level_{level}"]) for level in range(4)]
    assert feasible == sorted(feasible, reverse=True), "shallower groups allow less margin"
    for level in range(3):
        assert abs(float(terms[f"margin_level_{level}"])) < feasible[level]
    assert "margin_level_3" not in terms, "the root has no negatives"


@pytest.mark.parametrize("trees", ["one", "forest"])
@pytest.mark.parametrize("what", ["pixels", "prompts"])
def test_gradients_with_respect_to_both_perturbations(trees: str, what: str) -> None:
    objective = make_objective(trees)
    batch, perturbed = make_batch(objective)
    value = perturbed[what].requires_grad_()

    def both(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = {**perturbed, what: x}
        return objective.attack_loss(batch, inputs), objective(batch, inputs).total

    assert torch.autograd.gradcheck(both, (value,), fast_mode=True)


@pytest.mark.parametrize("learn_curvature", [False, True])
@pytest.mark.parametrize("text_eps", [None, 2e-4])
def test_gradients_with_respect_to_everything_that_trains(
    learn_curvature: bool, text_eps: float | None
) -> None:
    objective = make_objective("forest", learn_curvature=learn_curvature, text_eps=text_eps)
    batch, perturbed = make_batch(objective)
    named = {n: p for n, p in objective.named_parameters() if p.requires_grad}
    assert len(named) == len(objective.trainable())
    assert ("log_curvature" in named) == learn_curvature
    assert "model.model.text_projection" in named

    def loss(*values: torch.Tensor) -> torch.Tensor:
        weights = dict(zip(named, values, strict=True))
        return functional_call(objective, weights, (batch, perturbed)).total

    values = tuple(p.detach().clone().requires_grad_() for p in named.values())
    assert torch.autograd.gradcheck(loss, values, fast_mode=True)


def test_one_perturbation_of_image_and_prompts_attacks_all_levels() -> None:
    objective = make_objective(text_eps=0.01).float()
    batch = objective.prepare(Batch(pixels=make_pixels(len(LABELS)), labels=torch.tensor(LABELS)))
    attack = AttackConfig(n_steps=3, step_size=1 / 255, start="none")
    found = objective.perturb(batch, ThreatModel.parse("1/255"), attack)
    assert found["prompts"].shape == (12, objective.prompt_ids.shape[1], 32)
    assert float(found["prompts"].abs().max()) <= 0.01
    clean = {"pixels": batch.pixels, "prompts": torch.zeros_like(found["prompts"])}
    with torch.no_grad():
        levels = [objective(batch, inputs).terms for inputs in (clean, found)]
        images_only = objective.attack_loss(batch, {**found, "prompts": clean["prompts"]})
        both = objective.attack_loss(batch, found)
    assert all(
        float(levels[1][f"ce_level_{level}"]) > float(levels[0][f"ce_level_{level}"])
        for level in range(3)
    )
    assert float(both) > float(images_only)


@pytest.fixture(scope="module")
def hf_adapter(tmp_path_factory: pytest.TempPathFactory) -> ClipAdapter:
    return make_hf_adapter(tmp_path_factory.mktemp("bert"))


def test_a_cnn_beside_a_hugging_face_text_tower(hf_adapter: ClipAdapter) -> None:
    """The layout of robustzs-lite."""
    objective = make_objective("forest", hf=copy.deepcopy(hf_adapter))
    batch, perturbed = make_batch(objective, size=32)
    found = derive(objective, perturbed, "forest")
    with torch.no_grad():
        attack = objective.attack_loss(batch, perturbed)
    assert float(attack) == pytest.approx(sum(tree["contrast"] for tree in found), rel=1e-6)
    prompts = perturbed["prompts"].requires_grad_()
    (gradient,) = torch.autograd.grad(objective.attack_loss(batch, perturbed), prompts)
    untouched = int((gradient.abs().amax((1, 2)) == 0).sum())
    assert untouched == 2, "all prompts are attacked but the two roots', which nothing contrasts"
    objective(batch, perturbed).total.backward()
    names = {name for name in objective.trainable() if name.startswith("model.text")}
    assert names == {"model.text.proj.weight"}
    assert all(p.grad is not None for p in objective.trainable().values())


def test_without_text_perturbation_the_text_tower_is_not_run() -> None:
    objective = make_objective(text_eps=None)
    batch, perturbed = make_batch(objective)
    calls: list[int] = []
    embedding = objective.model.model.token_embedding
    handle = embedding.register_forward_hook(lambda *_: calls.append(1))  # type: ignore[union-attr]
    objective(batch, perturbed).total.backward()
    handle.remove()
    assert not calls
    projection = objective.model.text_projection[0][1]
    assert projection.grad is not None
    assert float(projection.grad.abs().max()) > 0


def test_text_scale_and_calibrated_image_scale_put_points_at_three_quarters() -> None:
    model = make_adapter()
    objective = Hierarchical.from_hierarchy(model, make_tree(ANIMALS), tokenize, template="{}")
    pixels = make_pixels(4)
    objective.calibrate_(pixels)
    with torch.no_grad():
        images, texts = objective._points(model.image_features(pixels), {})
    assert float(images.norm(dim=1).mean()) == pytest.approx(np.tanh(1.0), abs=0.02)
    assert float(texts[objective.leaf_rows].norm(dim=1).mean()) == pytest.approx(0.76, abs=0.03)


def test_a_bundle_scores_with_the_geometry_that_was_trained() -> None:
    objective = make_objective(text_eps=None)
    batch, perturbed = make_batch(objective)
    recorded = objective.geometry()
    logit_scale = float(recorded.pop("logit_scale"))
    geometry = Geometry.model_validate(recorded)
    with torch.no_grad():
        raw = objective.model.image_features(perturbed["pixels"])
        texts = objective.model.text_features(objective.prompt_ids)[objective.leaf_rows]
        points, text_points = objective._points(raw, {})
        result = objective._trees()[0].points_at_levels(
            points, batch.constant("tree_groups")[0], 1.0
        )[0]
        from robustzs_training.geometry import distance

        trained = -logit_scale * distance(result, text_points[objective.leaf_rows], 1.0)
    classes = scoring.class_features(texts.numpy()[:, None], geometry)
    similarity = scoring.similarities(raw.numpy(), classes, geometry)
    shipped = scoring.scale_logits(similarity, logit_scale=logit_scale)
    np.testing.assert_allclose(shipped, trained.numpy(), atol=1e-4)


def test_scales_stay_in_their_ranges() -> None:
    objective = make_objective(learn_curvature=True, curvature=0.5)
    with torch.no_grad():
        objective.log_logit_scale.fill_(9.0)
        objective.log_curvature.fill_(9.0)
    objective.clamp_()
    assert objective.geometry()["logit_scale"] == pytest.approx(100.0)
    assert objective.geometry()["curvature"] == pytest.approx(5.0)


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_both_papers_together_are_the_sum_of_both(weight: float) -> None:
    tree = make_objective("forest")
    captions = QtAft(tree.model).double()
    with torch.no_grad():
        for parameter in tree.model.visual.parameters():
            parameter += 0.05
    both = QtAftHierarchical(captions, tree, tree_weight=weight)
    batch, perturbed = make_batch(both)
    with torch.no_grad():
        attack = both.attack_loss(batch, perturbed)
        terms = both(batch, perturbed)
        alone = captions(batch, perturbed), tree(batch, perturbed)
        attacks = captions.attack_loss(batch, perturbed), tree.attack_loss(batch, perturbed)
    assert float(attack) == pytest.approx(float(attacks[0] + weight * attacks[1]), rel=1e-9)
    wanted = float(alone[0].total + weight * alone[1].total)
    assert float(terms.total) == pytest.approx(wanted, rel=1e-9)
    assert set(terms.terms) == {*alone[0].terms, *alone[1].terms}
    assert set(both.extra_parameters()) == {
        "captions.log_logit_scale",
        "tree.log_image_scale",
        "tree.log_text_scale",
        "tree.log_logit_scale",
    }
    assert "model.text_projection" in both.trainable()
    assert float(alone[0].total) > 1.0


def test_misuse_is_named() -> None:
    model = make_adapter()
    with pytest.raises(UsageError, match="different models"):
        QtAftHierarchical(QtAft(make_adapter()), make_objective())
    with pytest.raises(UsageError, match="curvature"):
        HierarchicalOptions(curvature=0.0)
    with pytest.raises(UsageError, match="average"):
        HierarchicalOptions(level_average="median")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="one row of tokens"):
        Hierarchical.from_hierarchy(model, make_tree(ANIMALS), lambda texts: tokenize(texts)[1:])
    long = "a template so long that nothing of the prompt is left {}"
    with pytest.raises(UsageError, match="same tokens"):
        Hierarchical.from_hierarchy(model, make_tree(ANIMALS), tokenize, template=long)
