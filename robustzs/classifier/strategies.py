"""From image features to probabilities on the nodes of every tree, by the chosen strategy.

The arithmetic on trees is ``robustzs.hierarchy.inference``'s, the comparison of features
``robustzs.scoring``'s; here it is decided which texts stand for what.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from robustzs.answer import Strategy
from robustzs.errors import UsageError
from robustzs.hierarchy import inference
from robustzs.hierarchy.forest import Forest
from robustzs.hierarchy.noun_index import NounIndex
from robustzs.labels.label_set import LabelSet
from robustzs.scoring import GeometryLike, scale_logits, similarities

Float32Array = npt.NDArray[np.float32]
Int64Array = npt.NDArray[np.int64]
Encode = Callable[[Sequence[str]], Float32Array]
"""Prompts to class vectors ``[n, D]``."""


@dataclass(frozen=True)
class Scores:
    """What the model says of a batch.

    Attributes:
        similarity: ``[B]``, the largest to any label.
        leaf_probs: ``[B, n_leaves]`` of the flat classifier, in the first tree's leaf order.
        node_probs: for each tree ``[B, n_nodes]``.
    """

    similarity: Float32Array
    leaf_probs: Float32Array
    node_probs: tuple[Float32Array, ...]


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """One strategy over one forest, ready to score.

    Args:
        forest: the trees.
        roots: in each tree the node that answers are confined to.
        strategy: where probabilities of inner nodes come from.
        geometry: how features are compared.
        logit_scale: of the model.
        temperature: of the softmax.
        leaf_classes: ``[n_leaves, D]`` in the first tree's leaf order.
        node_classes: for each tree ``[n_nodes, D]``; ``topdown`` and ``level`` only.
        subs: classes ``[n_subs, D]`` and the leaf of each ``[n_subs]``; ``hyponyms`` only.
    """

    forest: Forest
    roots: tuple[int, ...]
    strategy: Strategy
    geometry: GeometryLike
    logit_scale: float
    temperature: float
    leaf_classes: Float32Array
    node_classes: tuple[Float32Array, ...] = ()
    subs: tuple[Float32Array, Int64Array] | None = None

    def __call__(self, image_features: Float32Array) -> Scores:
        """Score raw image features ``[B, D]``."""
        first, root = self.forest[0], self.roots[0]
        similarity = similarities(image_features, self.leaf_classes, self.geometry)
        leaf_logits = self._logits(similarity)
        candidates = similarity[:, first.leaf_start[root] : first.leaf_end[root]].max(axis=1)
        if self.subs is not None:
            node_probs = self._hyponyms(image_features, leaf_logits, *self.subs)
            return Scores(candidates, node_probs[0][:, first.leaf_nodes], node_probs)
        flat = inference.marginal(leaf_logits, first, root=root)
        if self.strategy == "marginal":
            node_probs = (flat, *self._marginal(leaf_logits))
        else:
            node_probs = self._by_nodes(image_features)
        return Scores(candidates, flat[:, first.leaf_nodes], node_probs)

    def _marginal(self, leaf_logits: Float32Array) -> tuple[Float32Array, ...]:
        """The further trees', since the first is needed in any case."""
        further = list(zip(self.forest, self.forest.leaf_order, self.roots, strict=True))[1:]
        return tuple(
            inference.marginal(leaf_logits[:, order], tree, root=root)
            for tree, order, root in further
        )

    def _by_nodes(self, image_features: Float32Array) -> tuple[Float32Array, ...]:
        combine = inference.topdown if self.strategy == "topdown" else inference.level
        made = []
        for tree, root, classes in zip(self.forest, self.roots, self.node_classes, strict=True):
            compared = similarities(image_features, classes, self.geometry)
            made.append(combine(self._logits(compared), tree, root=root))
        return tuple(made)

    def _hyponyms(
        self,
        image_features: Float32Array,
        leaf_logits: Float32Array,
        sub_classes: Float32Array,
        sub_to_leaf: Int64Array,
    ) -> tuple[Float32Array, ...]:
        sub_logits = self._logits(similarities(image_features, sub_classes, self.geometry))
        return tuple(
            inference.hyponyms(
                sub_logits,
                np.argsort(order)[sub_to_leaf],  # from the first tree's leaf order to this one's
                tree,
                leaf_logits=leaf_logits[:, order],
                root=root,
            )
            for tree, order, root in zip(
                self.forest, self.forest.leaf_order, self.roots, strict=True
            )
        )

    def _logits(self, similarity: Float32Array) -> Float32Array:
        return scale_logits(similarity, logit_scale=self.logit_scale, temperature=self.temperature)


def make_scorer(
    forest: Forest,
    roots: tuple[int, ...],
    strategy: Strategy,
    encode: Encode,
    *,
    n_hyponyms: int,
    geometry: GeometryLike,
    logit_scale: float,
    temperature: float,
) -> Scorer:
    """Encode the texts that a strategy needs.

    Args:
        forest: the trees.
        roots: in each tree the node that answers are confined to.
        strategy: where probabilities of inner nodes come from.
        encode: prompts to class vectors.
        n_hyponyms: kinds of each label to add in strategy ``hyponyms``.
        geometry: how features are compared.
        logit_scale: of the model.
        temperature: of the softmax.

    Raises:
        UsageError: ``hyponyms``, and WordNet knows no kinds of any label.
    """
    first = forest[0]
    node_classes: tuple[Float32Array, ...] = ()
    subs = None
    if strategy in ("topdown", "level"):
        node_classes = tuple(encode(tree.prompts) for tree in forest)
        leaf_classes = node_classes[0][first.leaf_nodes]
    else:
        leaf_classes = encode([first.prompts[node] for node in first.leaf_nodes])
    if strategy == "hyponyms":
        prompts, leaves = expand(first.labels, NounIndex.load(), n_hyponyms)
        subs = (encode(prompts), np.asarray(leaves, np.int64))
    return Scorer(
        forest=forest,
        roots=roots,
        strategy=strategy,
        geometry=geometry,
        logit_scale=logit_scale,
        temperature=temperature,
        leaf_classes=leaf_classes,
        node_classes=node_classes,
        subs=subs,
    )


def expand(labels: LabelSet, index: NounIndex, limit: int) -> tuple[list[str], list[int]]:
    """Each label and up to ``limit`` of its kinds, the nearest first.

    Kinds that are labels themselves stay with those labels, and so does what is below them.

    Args:
        labels: with ``synset`` where it is known; a label without stays alone.
        index: WordNet's nouns.
        limit: kinds per label.

    Returns:
        Prompts, and for each the position of its label.

    Raises:
        UsageError: no label has any kinds.
    """
    own = [index.get(label.synset).wnid if label.synset else None for label in labels]
    taken = {wnid for wnid in own if wnid is not None}
    prompts: list[str] = []
    leaves: list[int] = []
    for position, (label, wnid) in enumerate(zip(labels, own, strict=True)):
        prompts.append(label.prompt)
        leaves.append(position)
        seen = set(taken)
        pending = deque([wnid] if wnid is not None else [])
        found: list[str] = []
        while pending and len(found) < limit:
            for kind in index.hyponyms(pending.popleft()):
                if kind.wnid not in seen:
                    seen.add(kind.wnid)
                    pending.append(kind.wnid)
                    found.append(kind.lemmas[0])
        prompts += found[:limit]
        leaves += [position] * len(found[:limit])
    if len(prompts) == len(labels):
        raise UsageError(
            "WordNet knows no kinds of these labels, which strategy 'hyponyms' needs",
            hint="use hierarchy wordnet, labels with a synset, or strategy marginal",
        )
    return prompts, leaves
