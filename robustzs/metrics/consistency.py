"""Hierarchical consistent accuracy: is every step down the path the model's own choice, too?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from robustzs.errors import LabelMismatchError
from robustzs.hierarchy.shape import TreeShape
from robustzs.metrics.verdicts import BoolArray, Families, as_nodes, blocks, is_right


def is_consistent(
    node_logits: ArrayLike, prediction: ArrayLike, truth: ArrayLike, tree: TreeShape
) -> BoolArray:
    """HCA's summand (ProTeCt, CVPR 2024): right at the leaf and at every branch above the truth.

    An image counts when its leaf is right **and**, at every ancestor of the truth, the child with
    the largest logit is the one that leads to the truth. Logits are those of the nodes' own
    prompts, so this measures the text tower: with masses summed up from the leaves it would say
    little. The first of equal children wins.

    Args:
        node_logits: ``[n, n_nodes]`` image against every node's prompt; the root's is unused.
        prediction: Flat top-1, leaves as node indices ``[n]``.
        truth: Node indices ``[n]``.
        tree: The tree.

    Raises:
        LabelMismatchError: Shapes that do not fit.
    """
    logits = np.asarray(node_logits)
    said, true = as_nodes(prediction, tree), as_nodes(truth, tree)
    shapes = (logits.shape, said.shape, true.shape)
    if shapes != ((len(true), len(tree)), true.shape, (len(true),)):
        raise LabelMismatchError(
            f"node_logits, prediction and truth have shapes {shapes}",
            hint=f"[n, {len(tree)}], [n] and [n]",
        )
    consistent = is_right(said, true, tree)
    families = Families(tree)
    for rows in blocks(len(true)):
        best = families.winners(logits[rows])
        each = np.arange(len(best))
        below = true[rows]
        while np.any(below > 0):
            above = np.maximum(tree.parent[below], 0)
            consistent[rows] &= (below == 0) | (best[each, above] == below)
            below = above.astype(np.int64)
    return consistent
