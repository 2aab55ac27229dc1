"""Contrast at every level of one tree, in the Poincaré ball.

::

    phi^0_i = phi(x_i);   phi^l_c = Einstein midpoint of the phi^{l-1} under c in this batch
    CE^l = mean over groups c of
           -log exp(-s d(phi^l_c, psi_c)) / sum_{n in C^l and N^l_c} exp(-s d(phi^l_c, psi_n))
    L' = sum_l w_l CE^l,   w_l = 1 - l / (L + 1)                            (Eqs. 8-10)

``C^l`` are the classes at level l, ``N^l_c`` those at the levels beside it; nothing above or below
``c`` is ever its negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from robustzs_training.geometry import Curvature, distance, feasible_margin, midpoints, norms
from robustzs_training.objectives.levels import TreeLevels

LevelAverage = Literal["groups", "images"]


@dataclass(frozen=True, kw_only=True)
class LevelGroups:
    """Which images of a batch share a class at one level.

    Attributes:
        classes: Place among the level's classes of each group: int64 ``[G]``.
        children: ``(group at the level below, group)`` pairs: int64 ``[M, 2]``.
        share: Images in each group divided by all images: float32 ``[G]``.
    """

    classes: torch.Tensor
    children: torch.Tensor
    share: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class LevelResult:
    """One level's loss and what it looked like.

    Attributes:
        cross_entropy: Scalar.
        margin: Mean over groups of the own class's logit minus the best negative's; ``None`` where
            no class has a negative.
        feasible_margin: The largest margin that the mean norm of the groups' points allows.
    """

    cross_entropy: torch.Tensor
    margin: torch.Tensor | None
    feasible_margin: torch.Tensor


class TreeContrast(nn.Module):
    """The levels of one tree, as buffers that follow their module to its device.

    Args:
        tree: From :func:`robustzs_training.objectives.levels.build_levels`.
        average: ``groups``: every group counts the same [R]. ``images``: by its images.
    """

    edges: torch.Tensor
    edge_weights: torch.Tensor

    def __init__(self, tree: TreeLevels, *, average: LevelAverage = "groups") -> None:
        super().__init__()
        self.name = tree.name
        self.n_levels = len(tree.levels) - 1
        self.average = average
        self._has_negatives = [bool((~level.excluded).sum(1).max() > 1) for level in tree.levels]
        for number, level in enumerate(tree.levels):
            for part in ("class_of_label", "columns", "excluded"):
                self.register_buffer(f"{part}_{number}", getattr(level, part), persistent=False)
        self.register_buffer("edges", tree.edges, persistent=False)
        self.register_buffer("edge_weights", tree.edge_weights, persistent=False)

    def weight(self, level: int) -> float:
        """``w_l``: 1 at the leaves, least at the root."""
        return 1.0 - level / (self.n_levels + 1)

    def groups(self, labels: torch.Tensor) -> tuple[LevelGroups, ...]:
        """Group a batch by class at every level; labels int64 ``[B]``."""
        n_images = len(labels)
        below = torch.arange(n_images, device=labels.device)
        found = []
        for level in range(self.n_levels + 1):
            of_image = self.get_buffer(f"class_of_label_{level}")[labels]
            if level == 0:
                classes, group = of_image, below
            else:
                classes, group = torch.unique(of_image, return_inverse=True)
            children = torch.unique(torch.stack([below, group], dim=1), dim=0)
            share = torch.bincount(group, minlength=len(classes)) / n_images
            found.append(LevelGroups(classes=classes, children=children, share=share))
            below = group
        return tuple(found)

    def points_at_levels(
        self, points: torch.Tensor, groups: Sequence[LevelGroups], curvature: Curvature
    ) -> list[torch.Tensor]:
        """``phi^l`` at every level: ``[G_l, D]`` each, from the images' ``[B, D]``."""
        found = [points]
        for level in groups[1:]:
            child, group = level.children.unbind(1)
            found.append(midpoints(found[-1][child], group, len(level.classes), curvature))
        return found

    def forward(
        self,
        points: torch.Tensor,
        groups: Sequence[LevelGroups],
        text_points: torch.Tensor,
        curvature: Curvature,
        logit_scale: torch.Tensor,
    ) -> list[LevelResult]:
        """Contrast every level.

        Args:
            points: ``phi(x)`` ``[B, D]``.
            groups: From :meth:`groups`.
            text_points: ``psi`` of every prompt: ``[N, D]``.
            curvature: ``r``.
            logit_scale: ``s``, exponential taken.
        """
        levels = self.points_at_levels(points, groups, curvature)
        return [
            self._contrast(level, each, groups[level], text_points, curvature, logit_scale)
            for level, each in enumerate(levels)
        ]

    def _contrast(
        self,
        level: int,
        points: torch.Tensor,
        group: LevelGroups,
        text_points: torch.Tensor,
        curvature: Curvature,
        logit_scale: torch.Tensor,
    ) -> LevelResult:
        columns = self.get_buffer(f"columns_{level}")
        excluded = self.get_buffer(f"excluded_{level}")[group.classes]
        logits = -logit_scale * distance(points, text_points[columns], curvature)
        logits = logits.masked_fill(excluded, -torch.inf)
        losses = F.cross_entropy(logits, group.classes, reduction="none")
        weights = group.share.to(losses) if self.average == "images" else 1.0 / len(losses)
        loss = (losses * weights).sum()
        with torch.no_grad():
            margin = _margin(logits, group.classes) if self._has_negatives[level] else None
            feasible = logit_scale * feasible_margin(norms(points).mean(), curvature)
        return LevelResult(cross_entropy=loss, margin=margin, feasible_margin=feasible)


def _margin(logits: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    column = own[:, None]
    best = logits.scatter(1, column, -torch.inf).amax(dim=1)
    gaps = logits.gather(1, column)[:, 0] - best
    has_negative = gaps.isfinite()
    return torch.where(has_negative, gaps, 0.0).sum() / has_negative.sum().clamp_min(1)
