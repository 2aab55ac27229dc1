"""Trees made from trees: a branch, fewer leaves, fewer inner nodes, a lower top."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from robustzs.errors import LabelMismatchError
from robustzs.hierarchy.tree import Hierarchy, Rank


def subtree(tree: Hierarchy, root: int) -> Hierarchy:
    """See :meth:`Hierarchy.subtree`."""
    tree.check_node(root)
    if root == 0:
        return tree
    end = int(tree.node_end[root])
    parent = [-1, *(int(p) - root for p in tree.parent[root + 1 : end])]
    return _select(tree, range(root, end), parent, f"{tree.name}/{tree.ids[root]}")


def restrict(tree: Hierarchy, leaf_ids: Iterable[str], *, name: str | None = None) -> Hierarchy:
    """See :meth:`Hierarchy.restrict`."""
    wanted = dict.fromkeys(leaf_ids)
    leaves = {tree.ids[i]: int(i) for i in tree.leaf_nodes}
    strangers = [leaf_id for leaf_id in wanted if leaf_id not in leaves]
    if strangers or not wanted:
        what = f"has no leaves {strangers[:8]}" if strangers else "cannot be restricted to nothing"
        raise LabelMismatchError(f"hierarchy {tree.name!r} {what}", hint="name leaves of the tree")
    n_before = np.zeros(len(tree) + 1, dtype=np.int64)
    n_before[[leaves[leaf_id] + 1 for leaf_id in wanted]] = 1
    n_before = np.cumsum(n_before)
    alive = n_before[tree.node_end] > n_before[:-1]  # holds a wanted leaf
    n_children = np.bincount(tree.parent[1:][alive[1:]], minlength=len(tree))
    return _keep(tree, alive & (n_children != 1), name or tree.name)


def keep_inner(tree: Hierarchy, inner: NDArray[np.bool_], *, name: str | None = None) -> Hierarchy:
    """The tree with all its leaves, but only some of its inner nodes; the root stays.

    Those that would have a single child give way to it. What is below a node that goes hangs from
    the nearest one above that stays.

    Args:
        tree: The tree.
        inner: Mask ``[n_nodes]`` of inner nodes to keep; leaves do not matter.
        name: What people call the new tree.
    """
    leaf = np.zeros(len(tree), dtype=bool)
    leaf[tree.leaf_nodes] = True
    keep = inner | leaf
    keep[0] = True
    nodes, above = _nearest_kept(tree, keep)
    n_children = np.bincount(np.array(nodes)[above[1:]], minlength=len(tree))
    return _keep(tree, keep & (n_children != 1), name or tree.name)


def cut_top(tree: Hierarchy) -> Hierarchy:
    """See :meth:`Hierarchy.cut_top`."""
    root = 0
    while len(tree.children(root)) == 1 and not tree.is_leaf(root + 1):
        root += 1
    return subtree(tree, root)


def _keep(tree: Hierarchy, keep: NDArray[np.bool_], name: str) -> Hierarchy:
    """The tree of some nodes and the root, each below the nearest one above it that stays."""
    keep = keep.copy()
    keep[0] = True
    nodes, above = _nearest_kept(tree, keep)
    return _select(tree, nodes, above, name)


def _nearest_kept(tree: Hierarchy, keep: NDArray[np.bool_]) -> tuple[list[int], list[int]]:
    """The kept nodes, and for each its nearest kept proper ancestor by place among them."""
    new_index = np.cumsum(keep) - 1
    above = [-1] * len(tree)
    for i, parent in enumerate(tree.parent.tolist()[1:], start=1):
        above[i] = int(new_index[parent]) if keep[parent] else above[parent]
    nodes = np.flatnonzero(keep).tolist()
    return nodes, [above[i] for i in nodes]


def _select(tree: Hierarchy, nodes: Sequence[int], parent: Sequence[int], name: str) -> Hierarchy:
    """The tree of some nodes, given in preorder, with their new parents."""
    new_index = {old: new for new, old in enumerate(nodes)}
    kept = {tree.ids[i] for i in nodes}
    hidden = tree.hidden[list(nodes)]
    hidden[0] = False  # a spacer that becomes the root stands for itself
    return Hierarchy(
        parent=np.array(parent, dtype=np.int32),
        name=name,
        ids=tuple(tree.ids[i] for i in nodes),
        names=tuple(tree.names[i] for i in nodes),
        synsets=tuple(tree.synsets[i] for i in nodes),
        glosses=tuple(tree.glosses[i] for i in nodes),
        prompts=tuple(tree.prompts[i] for i in nodes),
        aliases=tuple(tree.aliases[i] for i in nodes),
        hidden=hidden,
        ranks=tuple(
            Rank(rank.name, tuple(new_index[i] for i in rank.nodes if i in new_index))
            for rank in tree.ranks
        ),
        dropped_edges=tuple(edge for edge in tree.dropped_edges if edge[0] in kept),
        provenance=tree.provenance,
    )
