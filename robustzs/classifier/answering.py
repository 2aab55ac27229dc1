"""From probabilities on nodes to an ``Answer``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from robustzs.answer import Answer, HierarchyRef, ModelRef
from robustzs.classifier.options import Options, Threshold
from robustzs.classifier.strategies import Float32Array, Scores
from robustzs.hierarchy.forest import Forest
from robustzs.hierarchy.tree import Hierarchy
from robustzs.hierarchy.walk import Walk, walk

MAX_ALTERNATIVES = 5


@dataclass(frozen=True, kw_only=True)
class AnswerMaker:
    """Scores to answers.

    Args:
        model: which one scored.
        forest: the trees.
        roots: in each tree the node that answers are confined to.
        options: how to classify.
        thresholds: theta and its source for each tree.
        rejection: least similarity that is accepted, or ``None``.
        low_confidence: flat top-1 probability below which an answer is flagged, or ``None``.
        warnings: part of every answer.
    """

    model: ModelRef
    forest: Forest
    roots: tuple[int, ...]
    options: Options
    thresholds: tuple[Threshold, ...]
    rejection: float | None
    low_confidence: float | None
    warnings: tuple[str, ...]

    def __call__(self, scores: Scores, names: Sequence[str]) -> list[Answer]:
        """One answer for each row of the scores."""
        flat = np.argmax(scores.leaf_probs, axis=1)
        walks = [self._walk(k, scores.node_probs[k], flat) for k in range(len(self.forest))]
        return [
            self._answer(name, row, scores, [walked[row] for walked in walks])
            for row, name in enumerate(names)
        ]

    def _walk(self, k: int, node_probs: Float32Array, flat: npt.NDArray[np.intp]) -> list[Walk]:
        return walk(
            node_probs,
            self.forest[k],
            theta=self.thresholds[k].theta,
            rule=self.options.rule,
            root=self.roots[k],
            level=self.options.level,
            flat_top1=self._places[k][flat],
        )

    @cached_property
    def _places(self) -> tuple[npt.NDArray[np.intp], ...]:
        """In each tree the place of every leaf of the first."""
        return tuple(np.argsort(order) for order in self.forest.leaf_order)

    @cached_property
    def _references(self) -> tuple[HierarchyRef, ...]:
        return tuple(
            HierarchyRef(
                name=tree.name, digest=tree.digest, n_leaves=tree.n_leaves, n_nodes=tree.n_nodes
            )
            for tree in self.forest
        )

    def _answer(self, name: str, row: int, scores: Scores, walks: Sequence[Walk]) -> Answer:
        similarity = float(scores.similarity[row])
        rejected = self.rejection is not None and similarity < self.rejection
        first, *others = (
            self._tree_answer(k, scores.node_probs[k][row], walked, rejected)
            for k, walked in enumerate(walks)
        )
        top = self._top_k(scores.leaf_probs[row])
        # Checked as a whole: models made one by one, about 25 of them, take three times as long.
        return Answer.model_validate(
            {
                "image": name,
                "model": self.model,
                "strategy": self.options.strategy,
                **first,
                "flat_top1": top[0],
                "top_k": top,
                "similarity": similarity,
                "rejected": rejected,
                "low_confidence": (
                    self.low_confidence is not None and top[0]["probability"] < self.low_confidence
                ),
                "warnings": self.warnings,
                "forest": others,
            }
        )

    def _tree_answer(
        self, k: int, node_probs: Float32Array, walked: Walk, rejected: bool
    ) -> dict[str, Any]:
        """Fields of a ``TreeAnswer``."""
        tree, threshold = self.forest[k], self.thresholds[k]
        stop = 0 if rejected else walked.stop
        following = walked.path[stop + 1] if stop + 1 < len(walked.path) else None
        return {
            "hierarchy": self._references[k],
            "stop": {
                "theta": threshold.theta,
                "source": threshold.source,
                "alpha": threshold.alpha,
                "rule": self.options.rule,
                "reason": "rejected" if rejected else walked.reason,
                "calibration": threshold.calibration,
            },
            "prediction": _prediction(tree, walked.path[stop], node_probs),
            "path": _path(tree, walked.path, node_probs),
            "alternatives": _alternatives(tree, walked.path[stop], node_probs, following),
        }

    def _top_k(self, leaf_probs: Float32Array) -> list[dict[str, Any]]:
        """The most probable leaves below the root, best first; of equals the earlier one."""
        tree, root = self.forest[0], self.roots[0]
        start, end = int(tree.leaf_start[root]), int(tree.leaf_end[root])
        best = start + _largest(leaf_probs[start:end], self.options.top_k)
        return _nodes(tree, tree.leaf_nodes[best], leaf_probs[best])


def _prediction(tree: Hierarchy, index: int, node_probs: Float32Array) -> dict[str, Any]:
    return {
        **_node(tree, index, node_probs[index]),
        "is_leaf": tree.is_leaf(index),
        "n_leaf_descendants": int(tree.leaf_end[index] - tree.leaf_start[index]),
        "specificity": _probability(tree.specificity[index]),
    }


def _path(tree: Hierarchy, path: Sequence[int], node_probs: Float32Array) -> list[dict[str, Any]]:
    """The nodes of a path with their probabilities, alone and given the node before."""
    nodes = _nodes(tree, np.asarray(path), node_probs[list(path)])
    above = 1.0
    for node in nodes:
        probability = node["probability"]
        node["conditional_probability"] = min(1.0, probability / above) if above > 0.0 else 0.0
        above = probability
    return nodes


def _alternatives(
    tree: Hierarchy, index: int, node_probs: Float32Array, on_path: int | None
) -> list[dict[str, Any]]:
    """The most probable other children of a node: all but the one that the path goes on to."""
    others = np.asarray([c for c in tree.visible_children(index) if c != on_path], np.int64)
    best = others[_largest(node_probs[others], MAX_ALTERNATIVES)]
    return _nodes(tree, best, node_probs[best])


def _largest(values: Float32Array, k: int) -> npt.NDArray[np.intp]:
    """Positions of the ``k`` largest values, largest first; of equals the earlier one."""
    k = min(k, len(values))
    if k == 0:
        return np.empty(0, np.intp)
    # all that are as large as the k-th largest, so that the stable sort alone breaks ties
    candidates = np.flatnonzero(values >= np.partition(values, -k)[-k])
    order: npt.NDArray[np.intp] = candidates[np.argsort(-values[candidates], kind="stable")]
    return order[:k]


def _nodes(
    tree: Hierarchy, indices: npt.NDArray[np.integer], probabilities: Float32Array
) -> list[dict[str, Any]]:
    pairs = zip(indices.tolist(), probabilities.tolist(), strict=True)
    return [_node(tree, index, probability) for index, probability in pairs]


def _node(tree: Hierarchy, index: int, probability: float | np.floating) -> dict[str, Any]:
    """What every kind of node tells."""
    return {
        "id": tree.ids[index],
        "name": tree.names[index],
        "synset": tree.synsets[index],
        "depth": int(tree.depth[index]),
        "probability": _probability(probability),
    }


def _probability(value: float | np.floating) -> float:
    """A float within [0, 1]: float32 rounding may have carried it beyond by one unit."""
    return min(1.0, max(0.0, float(value)))
