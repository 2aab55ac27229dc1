"""From the labels of data to nodes of a tree: names, synsets or wnids at any depth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from robustzs.errors import DataError, UnknownNodeError
from robustzs.hierarchy.noun_index import SYNSET_NAME_PATTERN, WNID_PATTERN, NounIndex
from robustzs.hierarchy.tree import Hierarchy
from robustzs.metrics.verdicts import IndexArray

_SHOWN = 10


def truth_nodes(labels: Sequence[str], tree: Hierarchy) -> IndexArray:
    """The node that each label names: ``[n]``.

    A label is a node's id, synset, name in any case or alias. A wnid or a sense such as
    ``dog.n.01`` that the tree does not hold, because it was collapsed into its only child or lies
    beside the tree's own nodes, counts through the leaves that WordNet has below it: it is the node
    that covers exactly these.

    Args:
        labels: One for each image; equal ones are looked up once.
        tree: The tree.

    Raises:
        DataError: Naming every label that no node stands for.
    """
    aliases = _aliases(tree)
    found: dict[str, int] = {}
    problems: dict[str, str] = {}
    for text in dict.fromkeys(labels):
        try:
            found[text] = _find(text, tree, aliases)
        except UnknownNodeError as error:
            problems[text] = error.message
    if problems:
        shown = "; ".join(list(problems.values())[:_SHOWN])
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise DataError(
            f"{len(problems)} labels are no nodes of the hierarchy {tree.name!r}: {shown}{more}",
            hint="label images with names, ids or synsets of `robustzs hierarchy show`",
        )
    return np.array([found[text] for text in labels], np.int64)


def leaves_below(synset_id: str, tree: Hierarchy, index: NounIndex) -> IndexArray:
    """Columns of the leaves that are a synset or lie below it in WordNet, ascending.

    Args:
        synset_id: A wnid or a sense.
        tree: Its leaves have wnids as ids, or synsets.
        index: WordNet's nouns.
    """
    inside = index.below(synset_id, instances=True)
    senses = [
        tree.ids[node] if WNID_PATTERN.fullmatch(tree.ids[node]) else tree.synsets[node]
        for node in tree.leaf_nodes.tolist()
    ]
    return np.array(
        [j for j, s in enumerate(senses) if s and s in index and inside[index.row(s)]], np.int64
    )


def _find(text: str, tree: Hierarchy, aliases: dict[str, set[int]]) -> int:
    try:
        return tree.find(text)
    except UnknownNodeError:
        if any(_folded(name) == _folded(text) for name in tree.names):
            raise  # the name of several nodes
        named = aliases.get(_folded(text), set())
        if len(named) == 1:
            return next(iter(named))
        if len(named) > 1:
            ids = ", ".join(tree.ids[node] for node in sorted(named)[:_SHOWN])
            raise UnknownNodeError(f"{text!r} is an alias of several nodes: {ids}") from None
        if not (WNID_PATTERN.fullmatch(text) or SYNSET_NAME_PATTERN.fullmatch(text)):
            raise
    return _collapsed(text, tree)


def _collapsed(text: str, tree: Hierarchy) -> int:
    index = NounIndex.load()
    if text not in index:
        raise UnknownNodeError(f"WordNet has no noun {text!r}")
    leaves = leaves_below(text, tree, index)
    if len(leaves) == 0:
        raise UnknownNodeError(f"no leaf lies below {text!r}")
    first, last = int(leaves[0]), int(leaves[-1])
    nodes = tree.leaf_nodes
    common = int(tree.lca(int(nodes[first]), int(nodes[last])))
    if int(tree.n_leaf_descendants[common]) != len(leaves):
        raise UnknownNodeError(
            f"the {len(leaves)} leaves below {text!r} are not those of one node: the nearest, "
            f"{tree.names[common]!r}, has {int(tree.n_leaf_descendants[common])}"
        )
    return common


def _aliases(tree: Hierarchy) -> dict[str, set[int]]:
    found: dict[str, set[int]] = defaultdict(set)
    for node, texts in enumerate(tree.aliases):
        for text in _distinct(texts):
            found[text].add(node)
    return found


def _distinct(texts: Iterable[str]) -> set[str]:
    return {_folded(text) for text in texts}


def _folded(text: str) -> str:
    return text.casefold().replace("_", " ").strip()
