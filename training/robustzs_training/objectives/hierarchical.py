"""Hierarchically robust alignment in the Poincaré ball, over one tree or a forest.

::

    phi(x) = exp_0(a_I f(x)),  psi(t) = exp_0(a_T g(t)),  d the distance of the ball of curvature -r
    x^ = x + d_X,  t^ = t + d_T: one (image, prompt) perturbation for all levels and all trees
    L'    = sum_l w_l CE^l                                  per tree; see tree_contrast.py (8-10)
    L_vic = mean_i max(0, d(phi(x^_i), psi(t^_y)) - zeta_vic)
    L_gap^Label = mean_c sum_l max(0, |psi(t^_c^{l+1})| - |psi(t^_c^l)| + zeta_gap)
    L_gap^Intra = mean_i max(0, |psi(t^_y)| - |phi(x^_i)| + zeta_gap)
    L = sum over trees of  L' + lambda_1 L_vic + lambda_2 (L_gap^Label + L_gap^Intra)       (14)
    attack: sum over trees of L'                                                            (10)

Shapes: ``f(x)`` raw ``[B, D]``, ``g(t)`` raw ``[N, D]`` for the N distinct prompts of all trees,
``d_X`` ``[B, 3, H, W]``, ``d_T`` ``[N, T, W]`` on token embeddings. Groups are made of the images
of all processes.

Source: Dong et al., "Hierarchically Robust Zero-shot Vision-language Models", CVPR 2026
(arXiv 2604.18867). No code and no full text were available: [S] in an option's description marks
what is second-hand, from a public note on the paper; [R] marks a reconstruction of ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as F

from robustzs.errors import UsageError
from robustzs.hierarchy.forest import Forest
from robustzs.hierarchy.tree import Hierarchy
from robustzs.threat import ThreatModel
from robustzs_training.adapter import ClipAdapter
from robustzs_training.attacks.pgd import PerturbedInput, Tensors
from robustzs_training.geometry import distance, exp_0, norms, paired_distance
from robustzs_training.objectives.base import Batch, LossTerms, Objective, need
from robustzs_training.objectives.levels import Cut, LevelTable, Negatives, build_levels
from robustzs_training.objectives.terms import check_choice, widen
from robustzs_training.objectives.tree_contrast import (
    LevelAverage,
    LevelGroups,
    LevelResult,
    TreeContrast,
)
from robustzs_training.processes import gather

Tokenize = Callable[[list[str]], Any]
_MAX_LOGIT_SCALE = 100.0
_CURVATURE_RANGE = 10.0  # learnable curvature stays within this factor of its start (MERU)


@dataclass(frozen=True, kw_only=True)
class HierarchicalOptions:
    """What the paper leaves open, and what is known of it.

    Args:
        n_levels: L, levels above the leaves: 5 [S].
        cut: How ancestors become levels [R]; see :func:`build_levels`.
        negatives: Where Eq. 9's further negatives come from: ``both`` neighbouring levels is the
            best of the paper's ablation [S].
        level_average: Weight of a group in its level: all the same, or by its images [R].
        text_eps: Radius of the prompt perturbation, Linf on token embeddings: 2e-4 [S];
            ``None`` leaves prompts alone, and the text tower is then run once for all steps.
        text_step_size: ``text_eps / 2`` when ``None`` [R].
        curvature: ``r``: 1 [R].
        learn_curvature: Train ``r`` within a factor of 10 of its start, as MERU does [R].
        tangent_norm: Mean of ``sqrt(r) |a f|`` that the scales start from: 1, which puts points at
            0.76 of the ball's radius [R].
        initial_logit_scale: ``s = 1 / tau`` at the start; trains within [1, 100] [R].
        vicinity_weight: lambda_1: 0.5 [R].
        gap_weight: lambda_2: 1 [R].
        vicinity_radius: zeta_vic: 1 [R].
        vicinity_hinge: Nothing to gain within the radius (the note calls the term soft and not
            collapsing). ``False``: the note's formula to the letter, ``d - zeta_vic`` [S].
        gap: zeta_gap: ``0.05 / sqrt(r)`` when ``None`` [R].
        intra_gap: ``instance``: an image lies deeper than its own class's text. ``levels``: an
            image or group lies deeper than the group above it. Both are readings [R].

    Raises:
        UsageError: A value out of range or an unknown option.
    """

    n_levels: int = 5
    cut: Cut = "relative"
    negatives: Negatives = "both"
    level_average: LevelAverage = "groups"
    text_eps: float | None = 2e-4
    text_step_size: float | None = None
    curvature: float = 1.0
    learn_curvature: bool = False
    tangent_norm: float = 1.0
    initial_logit_scale: float = 1.0 / 0.07
    vicinity_weight: float = 0.5
    gap_weight: float = 1.0
    vicinity_radius: float = 1.0
    vicinity_hinge: bool = True
    gap: float | None = None
    intra_gap: Literal["instance", "levels"] = "instance"

    def __post_init__(self) -> None:
        check_choice("level_average", self.level_average, ("groups", "images"))
        check_choice("intra_gap", self.intra_gap, ("instance", "levels"))
        for name in ("curvature", "tangent_norm", "initial_logit_scale"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0.0):
                raise UsageError(f"{name} is {value!r}", hint="a number > 0")


class Hierarchical(Objective):
    """See the module's text.

    Args:
        model: Its image tower and text projection train.
        table: Levels of the trees over one table of prompts.
        prompt_ids: int64 ``[N, T]``: the tokens of ``table.prompts``, templates filled.
        options: What the paper leaves open.

    Raises:
        UsageError: Another number of prompts than the table has, or prompts that are all the same.
    """

    prompt_ids: torch.Tensor
    pooled_text: torch.Tensor
    leaf_rows: torch.Tensor

    def __init__(
        self,
        model: ClipAdapter,
        table: LevelTable,
        prompt_ids: torch.Tensor,
        options: HierarchicalOptions | None = None,
    ) -> None:
        super().__init__(model)
        self.options = options = options or HierarchicalOptions()
        if prompt_ids.ndim != 2 or len(prompt_ids) != len(table.prompts):
            raise UsageError(
                f"prompt tokens of shape {list(prompt_ids.shape)} for {len(table.prompts)} prompts",
                hint="give one row of tokens for each of table.prompts",
            )
        if bool((prompt_ids == prompt_ids[:1]).all()):
            raise UsageError(
                f"all {len(prompt_ids)} prompts have the same tokens",
                hint="the template may be longer than the text tower reads",
            )
        self.trees = nn.ModuleList(
            TreeContrast(tree, average=options.level_average) for tree in table.trees
        )
        self.register_buffer("prompt_ids", model.trim(prompt_ids), persistent=False)
        self.register_buffer("leaf_rows", table.leaf_rows, persistent=False)
        self.register_buffer("pooled_text", self._pool_prompts(), persistent=False)
        scale = self._scale_for(model.project_text(self.pooled_text)[self.leaf_rows])
        self.log_text_scale = nn.Parameter(scale.log())
        self.log_image_scale = nn.Parameter(scale.log())
        self.log_logit_scale = nn.Parameter(torch.tensor(math.log(options.initial_logit_scale)))
        log_curvature = torch.tensor(math.log(options.curvature))
        self.log_curvature = nn.Parameter(log_curvature, requires_grad=options.learn_curvature)
        self.select_trainable_()

    @classmethod
    def from_hierarchy(
        cls,
        model: ClipAdapter,
        hierarchy: Hierarchy | Forest,
        tokenize: Tokenize,
        *,
        template: str = "This is a photo of a {}",
        options: HierarchicalOptions | None = None,
    ) -> Hierarchical:
        """Build levels and prompts from trees.

        Args:
            model: Its image tower and text projection train.
            hierarchy: One tree, or several over the same leaves. Labels are the first one's leaves.
            tokenize: Texts -> int64 ``[N, T]``.
            template: Filled with the prompt of each node, at every level [R].
            options: What the paper leaves open.
        """
        options = options or HierarchicalOptions()
        table = build_levels(
            hierarchy, n_levels=options.n_levels, cut=options.cut, negatives=options.negatives
        )
        texts = [template.replace("{}", prompt) for prompt in table.prompts]
        return cls(model, table, torch.as_tensor(tokenize(texts)), options)

    # ---- scales ------------------------------------------------------------------------------

    @torch.no_grad()
    def _pool_prompts(self, chunk: int = 256) -> torch.Tensor:
        return torch.cat([self.model.pooled_text(part) for part in self.prompt_ids.split(chunk)])

    def _scale_for(self, features: torch.Tensor) -> torch.Tensor:
        length = widen(features.detach()).norm(dim=1).mean()
        return self.options.tangent_norm / (math.sqrt(self.options.curvature) * length)

    @torch.no_grad()
    def calibrate_(self, pixels: torch.Tensor) -> None:
        """Start the image scale from these images ``[B, 3, H, W]``; until then it is the texts'.

        All processes together; call it once, before training.
        """
        features = gather(self.model.image_features(pixels))
        self.log_image_scale.copy_(self._scale_for(features).log())

    def begin_(self, batch: Batch) -> None:
        """Start the image scale from the first batch."""
        self.calibrate_(batch.pixels)

    @property
    def curvature(self) -> torch.Tensor:
        """``r``."""
        return self.log_curvature.exp()

    @torch.no_grad()
    def geometry(self) -> dict[str, float | str]:
        """What a bundle records of how this model compares features."""
        return {
            "kind": "poincare",
            "curvature": float(self.curvature),
            "image_scale": float(self.log_image_scale.exp()),
            "text_scale": float(self.log_text_scale.exp()),
            "logit_scale": float(self.log_logit_scale.exp()),
        }

    @torch.no_grad()
    def clamp_(self) -> None:
        """Keep ``s`` in [1, 100] and ``r`` within a factor of 10 of its start."""
        self.log_logit_scale.clamp_(0.0, math.log(_MAX_LOGIT_SCALE))
        start, reach = math.log(self.options.curvature), math.log(_CURVATURE_RANGE)
        self.log_curvature.clamp_(start - reach, start + reach)

    # ---- one step ------------------------------------------------------------------------------

    def trained_model_parameters(self) -> dict[str, nn.Parameter]:
        """The image tower and the text projection."""
        return {**self.model.visual_parameters(), **dict(self.model.text_projection)}

    def perturbable(self, batch: Batch, threat: ThreatModel) -> dict[str, PerturbedInput]:
        """Pixels, and one perturbation of every prompt's token embeddings."""
        inputs = super().perturbable(batch, threat)
        eps = self.options.text_eps
        if eps is None:
            return inputs
        step_size = self.options.text_step_size
        shape = (*self.prompt_ids.shape, self.model.text_width)
        inputs["prompts"] = PerturbedInput(
            clean=torch.zeros(shape, device=batch.pixels.device),
            threat=ThreatModel(norm="Linf", eps=eps),
            bounds=None,
            step_size=eps / 2.0 if step_size is None else step_size,
            start="none",
            shared=True,
        )
        return inputs

    @torch.no_grad()
    def prepare(self, batch: Batch) -> Batch:
        """Group the images of all processes at every level."""
        labels = gather(need(batch.labels, "labels"))
        groups = tuple(tree.groups(labels) for tree in self._trees())
        return batch.with_constants(tree_labels=labels, tree_groups=groups)

    def _trees(self) -> list[TreeContrast]:
        return [tree for tree in self.trees if isinstance(tree, TreeContrast)]

    def _points(
        self, image_features: torch.Tensor, perturbed: Tensors
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``phi`` ``[W * B, D]`` of all processes' images and ``psi`` ``[N, D]``."""
        pooled = self.pooled_text
        if "prompts" in perturbed:
            pooled = self.model.pooled_text(self.prompt_ids, perturbation=perturbed["prompts"])
        text_features = widen(self.model.project_text(pooled))
        images = gather(widen(image_features)) * self.log_image_scale.exp()
        texts = text_features * self.log_text_scale.exp()
        return exp_0(images, self.curvature), exp_0(texts, self.curvature)

    def _contrast(
        self, batch: Batch, points: torch.Tensor, texts: torch.Tensor
    ) -> tuple[torch.Tensor, list[list[LevelResult]]]:
        """``L'`` summed over trees, and every tree's levels."""
        scale, all_groups = self.log_logit_scale.exp(), batch.constant("tree_groups")
        results = [
            tree(points, groups, texts, self.curvature, scale)
            for tree, groups in zip(self._trees(), all_groups, strict=True)
        ]
        weighted = [
            tree.weight(level) * result.cross_entropy
            for tree, found in zip(self._trees(), results, strict=True)
            for level, result in enumerate(found)
        ]
        return torch.stack(weighted).sum(), results

    def attack_terms(
        self, batch: Batch, image_features: torch.Tensor, perturbed: Tensors
    ) -> torch.Tensor:
        """Eq. 10 over all trees, of raw features ``[B, D]`` of the attacked images."""
        return self._contrast(batch, *self._points(image_features, perturbed))[0]

    def attack_loss(self, batch: Batch, perturbed: Tensors) -> torch.Tensor:
        """Eq. 10 over all trees."""
        features = self.model.image_features(perturbed["pixels"])
        return self.attack_terms(batch, features, perturbed)

    def loss_terms(
        self, batch: Batch, image_features: torch.Tensor, perturbed: Tensors
    ) -> LossTerms:
        """Eq. 14 over all trees, of raw features ``[B, D]`` of the attacked images."""
        options = self.options
        points, texts = self._points(image_features, perturbed)
        contrast, results = self._contrast(batch, points, texts)
        own = texts[self.leaf_rows[batch.constant("tree_labels")]]
        vicinity = len(self.trees) * self._vicinity(points, own)
        gap_label = torch.stack([self._label_gap(tree, texts) for tree in self._trees()]).sum()
        gap_intra = torch.stack(
            [
                self._intra_gap(tree, groups, points, own)
                for tree, groups in zip(self._trees(), batch.constant("tree_groups"), strict=True)
            ]
        ).sum()
        total = (
            contrast
            + options.vicinity_weight * vicinity
            + options.gap_weight * (gap_label + gap_intra)
        )
        terms = {
            "contrast": contrast,
            "vicinity": vicinity,
            "gap_label": gap_label,
            "gap_intra": gap_intra,
            **_level_report(results),
        }
        return LossTerms(total=total, terms={name: t.detach() for name, t in terms.items()})

    def loss(self, batch: Batch, perturbed: Tensors) -> LossTerms:
        """Eq. 14 over all trees; the terms also tell each level's cross-entropy and margins."""
        features = self.model.image_features(perturbed["pixels"])
        return self.loss_terms(batch, features, perturbed)

    def choices(
        self, batch: Batch, image_features: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The leaves, by nearness in the ball; prompts as they are without an attack."""
        texts = widen(self.model.project_text(self.pooled_text))[self.leaf_rows]
        images = widen(image_features) * self.log_image_scale.exp()
        points = exp_0(texts * self.log_text_scale.exp(), self.curvature)
        scores = -distance(exp_0(images, self.curvature), points, self.curvature)
        return scores, need(batch.labels, "labels")

    # ---- depth ---------------------------------------------------------------------------------

    def _zeta_gap(self) -> float:
        gap = self.options.gap
        return 0.05 / math.sqrt(self.options.curvature) if gap is None else gap

    def _vicinity(self, points: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        excess = paired_distance(points, own, self.curvature) - self.options.vicinity_radius
        return (F.relu(excess) if self.options.vicinity_hinge else excess).mean()

    def _label_gap(self, tree: TreeContrast, texts: torch.Tensor) -> torch.Tensor:
        depth = norms(texts)
        child, parent = tree.edges.unbind(1)
        hinge = F.relu(depth[parent] - depth[child] + self._zeta_gap())
        return (hinge * tree.edge_weights).sum()

    def _intra_gap(
        self,
        tree: TreeContrast,
        groups: Sequence[LevelGroups],
        points: torch.Tensor,
        own: torch.Tensor,
    ) -> torch.Tensor:
        if self.options.intra_gap == "instance":
            return F.relu(norms(own) - norms(points) + self._zeta_gap()).mean()
        levels = tree.points_at_levels(points, groups, self.curvature)
        hinges = []
        for level in range(1, len(levels)):
            child, parent = groups[level].children.unbind(1)
            difference = norms(levels[level])[parent] - norms(levels[level - 1])[child]
            hinges.append(F.relu(difference + self._zeta_gap()).mean())
        return torch.stack(hinges).sum()


def _level_report(results: Sequence[Sequence[LevelResult]]) -> dict[str, torch.Tensor]:
    """Means over trees of each level's cross-entropy, margin and feasible margin."""
    report: dict[str, torch.Tensor] = {}
    for level, found in enumerate(zip(*results, strict=True)):
        report[f"ce_level_{level}"] = torch.stack([each.cross_entropy for each in found]).mean()
        margins = [each.margin for each in found if each.margin is not None]
        if margins:
            report[f"margin_level_{level}"] = torch.stack(margins).mean()
        report[f"feasible_margin_level_{level}"] = torch.stack(
            [each.feasible_margin for each in found]
        ).mean()
    return report
