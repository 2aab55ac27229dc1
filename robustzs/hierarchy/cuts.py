"""Other trees over the same leaves, so that one taxonomy gives a forest.

* :func:`cut_at_depths` keeps the nodes at some depths. WordNet's depths are uneven: the leaves of
  ImageNet's tree lie at 4 to 16.
* :func:`cut_at_counts` keeps levels of about so many classes: starting at the root, the class with
  the most leaves is divided into its children until there are enough. Levels nest.
* :func:`with_other_parents` takes edges of the graph that the tree left out: in WordNet's a dog is
  a canine, in this one a domestic animal.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from robustzs.errors import UsageError
from robustzs.hierarchy.build import Node
from robustzs.hierarchy.grow import synset_node
from robustzs.hierarchy.noun_index import NounIndex
from robustzs.hierarchy.reshape import keep_inner, restrict
from robustzs.hierarchy.tree import Hierarchy


def cut_at_depths(tree: Hierarchy, depths: Sequence[int], *, name: str | None = None) -> Hierarchy:
    """Keep the root, the leaves and the inner nodes at some depths.

    Args:
        tree: The tree.
        depths: Distances from the root; at least one of them has inner nodes.
        name: What people call the new tree; by default the depths follow the old name.

    Raises:
        UsageError: No depths, one below 1, or none that has an inner node.
    """
    chosen = sorted(set(depths))
    if not chosen or chosen[0] < 1:
        raise UsageError(
            f"a tree cannot be cut at the depths {_listed(chosen) or 'none'}",
            hint="depths count from 1, the children of the root",
        )
    inner = np.isin(tree.depth, chosen) & ~_leaves(tree) & ~tree.hidden
    if not inner.any():
        deepest = int(tree.depth[~_leaves(tree)].max())
        raise UsageError(
            f"{tree.name!r} has no inner node at the depths {_listed(chosen)}",
            hint=f"its deepest inner node is at {deepest}",
        )
    cut = keep_inner(tree, inner, name=name or f"{tree.name}-depths-{_listed(chosen, '-')}")
    return _recorded(cut, f"depths {_listed(chosen)}", tree)


def cut_at_counts(tree: Hierarchy, counts: Sequence[int], *, name: str | None = None) -> Hierarchy:
    """Keep the root, the leaves and levels of about so many classes, equal ones as far as it goes.

    Args:
        tree: The tree.
        counts: Classes of each level, 2 or more; a level has as many or, since classes are divided
            into all their children, a few more. Leaves that were reached count as classes.
        name: What people call the new tree; by default the counts follow the old name.

    Raises:
        UsageError: No counts, one below 2, or one that is no less than the leaves.
    """
    chosen = sorted(set(counts))
    if not chosen or chosen[0] < 2 or chosen[-1] >= tree.n_leaves:
        raise UsageError(
            f"{tree.n_leaves} leaves cannot be cut into {_listed(chosen) or 'no'} classes",
            hint=f"give numbers from 2 to {tree.n_leaves - 1}",
        )
    inner = np.zeros(len(tree), dtype=bool)
    size = tree.n_leaf_descendants
    frontier = [(-int(size[0]), 0)]
    n_leaves = 0  # reached already, and never divided
    for count in chosen:
        while len(frontier) + n_leaves < count and frontier:
            _, node = heapq.heappop(frontier)
            for child in tree.children(node).tolist():
                if tree.is_leaf(child):
                    n_leaves += 1
                else:
                    heapq.heappush(frontier, (-int(size[child]), child))
        inner[[node for _, node in frontier]] = True
    inner &= ~tree.hidden
    cut = keep_inner(tree, inner, name=name or f"{tree.name}-classes-{_listed(chosen, '-')}")
    return _recorded(cut, f"levels of {_listed(chosen)} classes", tree)


def with_other_parents(
    tree: Hierarchy, index: NounIndex | None = None, *, name: str | None = None
) -> Hierarchy:
    """Move each node that had a second parent in the graph below that one.

    The first of several is taken, and a move that would close a ring is left out. Inner nodes that
    are left with one child or none go.

    Args:
        tree: The tree; its ``dropped_edges`` say what else there is.
        index: The nouns, for parents that are not in the tree yet: they come with what is above
            them. ``None`` keeps to the nodes of the tree.
        name: What people call the new tree.

    Raises:
        UsageError: No node has another parent.
    """
    nodes = {node.id: node for node in tree.to_nodes()}
    leaves = set(tree.leaf_ids)
    above = {node.id: node.parent_id for node in nodes.values() if node.parent_id is not None}
    moved: set[str] = set()
    for child, parent in tree.dropped_edges:
        if child not in nodes or child in moved or parent in leaves or above.get(child) == parent:
            continue
        new = {} if parent in nodes else _path_into(nodes, leaves, parent, index)
        if new is None:
            continue
        further = {**above, **{n.id: n.parent_id for n in new.values() if n.parent_id is not None}}
        if not _is_above(child, parent, further):
            nodes.update(new)
            above = {**further, child: parent}
            moved.add(child)
    if not moved:
        raise UsageError(
            f"no node of {tree.name!r} has another parent",
            hint="only trees that are grown from a graph, such as WordNet, have some",
        )
    left_out = {edge for edge in tree.dropped_edges if above.get(edge[0]) != edge[1]}
    left_out |= {(child, tree.ids[tree.parent[tree.index(child)]]) for child in moved}
    whole = Hierarchy.from_nodes(
        [replace(node, parent_id=above.get(node.id)) for node in nodes.values()],
        name=name or f"{tree.name}-other-parents",
        ranks={rank.name: [tree.ids[i] for i in rank.nodes] for rank in tree.ranks},
        dropped_edges=sorted(left_out),
        provenance=dict(tree.provenance),
    )
    return _recorded(restrict(whole, tree.leaf_ids), "other parents", tree)


def _path_into(
    nodes: Mapping[str, Node], leaves: set[str], wnid: str, index: NounIndex | None
) -> dict[str, Node] | None:
    """A synset and its first hypernyms, up to a node that is there; ``None`` if there is no way."""
    new: dict[str, Node] = {}
    while wnid not in nodes:
        if index is None or wnid not in index:
            return None
        synset = index.get(wnid)
        hypernyms = synset.hypernyms or synset.instance_hypernyms
        if not hypernyms or hypernyms[0] in leaves:
            return None
        new[wnid] = synset_node(index, synset.row, hypernyms[0])
        wnid = hypernyms[0]
    return new


def _is_above(node: str, other: str, parent: dict[str, str]) -> bool:
    """Whether ``node`` is ``other`` or above it."""
    at: str | None = other
    while at is not None and at != node:
        at = parent.get(at)
    return at is not None


def _leaves(tree: Hierarchy) -> NDArray[np.bool_]:
    mask = np.zeros(len(tree), dtype=bool)
    mask[tree.leaf_nodes] = True
    return mask


def _listed(numbers: Sequence[int], separator: str = ", ") -> str:
    return separator.join(map(str, numbers))


def _recorded(cut: Hierarchy, how: str, tree: Hierarchy) -> Hierarchy:
    record = {**dict(tree.provenance), "cut": f"{how} of sha256:{tree.digest}"}
    return replace(cut, provenance=tuple(sorted(record.items())))
