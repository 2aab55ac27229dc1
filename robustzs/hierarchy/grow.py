"""Growing trees over labels from WordNet's nouns.

:func:`grow_wordnet_tree` for any labels whose senses are known:

1. all hypernyms and instance hypernyms of the senses, up to the root;
2. four edges put right (``data/wordnet_overrides.csv`` says which and why);
3. one parent per node, on the longest path (:mod:`robustzs.hierarchy.noun_graph`);
4. inner nodes with one child give way to the child; the root stays;
5. children in the order of WordNet's offsets.

For ImageNet-1k this gives 1375 nodes, 375 of them inner, leaves at depth 4 to 16, on average 9.6.
(WordNet without step 2 has as many nodes, and eight classes under *abstraction*, depth 2 to 16.)

:func:`grow_noun_tree` for all concrete nouns at once.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from robustzs.errors import LabelMismatchError, UsageError
from robustzs.hierarchy.build import BuildOptions, Node
from robustzs.hierarchy.limits import DEFAULT_LIMITS, HierarchyLimits
from robustzs.hierarchy.noun_graph import noun_graph
from robustzs.hierarchy.noun_index import BoolArray, Int32Array, NounIndex
from robustzs.hierarchy.tree import Hierarchy
from robustzs.labels.label import Label
from robustzs.labels.label_set import LabelSet

IMAGENET_TREE_PATH = Path(__file__).parent / "data" / "imagenet1k.json"
WORDNET_ROOT = "entity.n.01"
CONCRETE_ROOT = "physical_entity.n.01"
PERSON = "person.n.01"

_PROVENANCE = {
    "source": "WordNet 3.0",
    "method": "robustzs.hierarchy.grow",
    "licence": "WordNet 3.0 Copyright 2006 by Princeton University. All rights reserved. The "
    "notice in robustzs/hierarchy/data/WORDNET_LICENSE.txt must stay with every copy.",
}


def grow_wordnet_tree(
    labels: LabelSet,
    index: NounIndex,
    *,
    senses: Sequence[str | None] | None = None,
    root: str | None = None,
    cut_top: bool = False,
    max_depth: int | None = None,
    name: str = "wordnet",
    limits: HierarchyLimits = DEFAULT_LIMITS,
) -> Hierarchy:
    """The WordNet tree over some labels.

    Leaves have the labels' ids, names and prompts; inner nodes have wnids. A label with another
    one below it (``dog`` beside ``labrador``) becomes a leaf under the inner node of its sense,
    named ``dog (other)``, with its own id and prompt; should that id be the node's wnid, the inner
    node is called ``<wnid>--any``. Labels of one sense share an inner node in the same way.

    Args:
        labels: What the leaves stand for.
        index: The nouns.
        senses: A wnid or name such as ``dog.n.01`` per label; ``None`` in it hangs the label
            straight under the root. By default the labels' own ``synset``.
        root: Wnid or name of the node to start from; all senses must lie below it.
        cut_top: Start at the deepest node that has all labels below it.
        max_depth: Deepest allowed leaf; inner nodes from this depth on give way to their leaves.
        name: What people call the tree.
        limits: Caps.

    Raises:
        LabelMismatchError: If a sense does not lie below ``root``.
        UnknownLabelError: If WordNet has no such sense.
        HierarchyLimitError: If the tree is larger than ``limits`` allow.
        UsageError: If ``max_depth`` is below 1 or the number of senses is wrong.
    """
    if max_depth is not None and max_depth < 1:
        raise UsageError(f"max_depth is {max_depth}, it must be at least 1")
    given = [label.synset for label in labels] if senses is None else list(senses)
    if len(given) != len(labels):
        raise UsageError(f"{len(given)} senses for {len(labels)} labels")
    rows = [None if sense is None else index.row(sense) for sense in given]
    root_row = index.row(root or WORDNET_ROOT)
    graph = noun_graph(index)
    within = graph.below(root_row)
    _check_below(labels, rows, within, index, root_row)
    kept = graph.above([root_row, *(row for row in rows if row is not None)], within=within)
    tree_parent = graph.tree_parents(kept & within)
    grower = _Grower(index, labels, rows, root_row, tree_parent)
    nodes = grower.nodes(max_depth)
    ids = {row: node_id for node_id, row in grower.row_of.items()}
    dropped = graph.other_edges(kept, tree_parent)
    tree = Hierarchy.from_nodes(
        nodes,
        name=name,
        options=BuildOptions(limits=limits),
        dropped_edges=((ids[c], index.wnid(p)) for c, p in dropped if c in ids),
        provenance=_PROVENANCE,
    )
    return tree.cut_top() if cut_top else tree


def build_imagenet_tree(index: NounIndex) -> Hierarchy:
    """The tree of the 1000 ImageNet-1k classes.

    Its ``to_json()`` ships as ``data/imagenet1k.json``; a test says when that must be rewritten.
    """
    return grow_wordnet_tree(LabelSet.imagenet1k(), index, name="imagenet1k")


@lru_cache(maxsize=1)
def imagenet_tree() -> Hierarchy:
    """The shipped tree of the 1000 ImageNet-1k classes.

    Raises:
        HierarchyDigestError: If the file was changed.
    """
    text = IMAGENET_TREE_PATH.read_bytes()
    return Hierarchy.from_json(text, source=IMAGENET_TREE_PATH.name)


def grow_noun_tree(
    index: NounIndex,
    *,
    root: str = CONCRETE_ROOT,
    without: Sequence[str] = (PERSON,),
    name: str = "wordnet-nouns",
    limits: HierarchyLimits = DEFAULT_LIMITS,
) -> Hierarchy:
    """All nouns under a root as one tree, individuals left out, nothing collapsed.

    By default the concrete nouns: what is under *physical entity* and not under *person*. WordNet
    3.0 has 32,577 such synsets, 25,091 of them without hyponyms; the overrides bring 15 more
    (traffic lights, street signs, bubbles and their kinds). 92 synsets have only hyponyms whose
    longest path leads elsewhere and are leaves, too.

    Prompts are first lemmas; where several nodes share one, ``lemma, parent`` and, should that not
    be enough, ``lemma, gloss`` tell them apart.

    Args:
        index: The nouns.
        root: Wnid or name of the node to start from.
        without: Wnids or names of synsets to leave out with everything below them.
        name: What people call the tree.
        limits: Caps.
    """
    graph = noun_graph(index, instances=False)
    root_row = index.row(root)
    chosen = graph.below(root_row)
    for synset_id in without:
        chosen &= ~graph.below(index.row(synset_id))
    tree_parent = graph.tree_parents(chosen)
    rows = np.flatnonzero(chosen).tolist()
    nodes = [
        synset_node(index, row, None if row == root_row else index.wnid(tree_parent[row]))
        for row in rows
    ]
    return Hierarchy.from_nodes(
        _with_distinct_prompts(nodes),
        name=name,
        options=BuildOptions(limits=limits),
        dropped_edges=(
            (index.wnid(c), index.wnid(p)) for c, p in graph.other_edges(chosen, tree_parent)
        ),
        provenance=_PROVENANCE,
    )


def flat_tree(
    labels: LabelSet, *, name: str = "flat", limits: HierarchyLimits = DEFAULT_LIMITS
) -> Hierarchy:
    """A root with all labels under it."""
    taken = set(labels.ids)
    root = "root"
    while root in taken:
        root += "_"
    nodes = [Node(id=root, name="anything")]
    nodes += [_label_node(label, root, synset=label.synset) for label in labels]
    return Hierarchy.from_nodes(nodes, name=name, options=BuildOptions(limits=limits))


@dataclass
class _Grower:
    """Turns rows with their tree parents into nodes: collapsing, label leaves, depth limit."""

    index: NounIndex
    labels: LabelSet
    rows: Sequence[int | None]
    root_row: int
    tree_parent: Int32Array

    def __post_init__(self) -> None:
        self.row_of: dict[str, int] = {}  # of every node that was made
        self._by_row: dict[int | None, list[Label]] = defaultdict(list)
        for label, row in zip(self.labels, self.rows, strict=True):
            self._by_row[row].append(label)
        self._children: dict[int, list[int]] = defaultdict(list)
        for row in self._path_rows():
            if row != self.root_row:
                self._children[int(self.tree_parent[row])].append(row)

    def _path_rows(self) -> list[int]:
        """Rows on the tree paths from the labels to the root, ascending."""
        seen = {self.root_row}
        for row in self.rows:
            while row is not None and row not in seen:
                seen.add(row)
                row = int(self.tree_parent[row])
        return sorted(seen)

    def nodes(self, max_depth: int | None) -> list[Node]:
        label_ids = set(self.labels.ids)
        made: list[Node] = []
        # row, id of the nearest made ancestor, the depth that a node made here would have
        stack: list[tuple[int, str | None, int]] = [(self.root_row, None, 0)]
        while stack:
            row, above, depth = stack.pop()
            own, below = self._by_row.get(row, []), self._children.get(row, [])
            is_root = row == self.root_row
            if not is_root and not below and len(own) == 1:
                self._make(made, self._leaf(own[0], above, row), row)
                continue
            branches = len(own) + len(below)
            too_deep = max_depth is not None and depth >= max_depth
            if is_root or (branches > 1 and not too_deep):
                node = synset_node(self.index, row, above)
                if node.id in label_ids:
                    node = replace(node, id=f"{node.id}--any")
                self._make(made, node, row)
                above, depth = node.id, depth + 1
            stack += [(child, above, depth) for child in reversed(below)]
            for label in own:
                leaf = self._leaf(label, above, row)
                if below or is_root:
                    leaf = replace(leaf, name=f"{label.name} (other)")
                made.append(leaf)
        root_id = made[0].id
        made += [_label_node(label, root_id) for label in self._by_row.get(None, [])]
        return made

    def _leaf(self, label: Label, above: str | None, row: int) -> Node:
        gloss = self.index.gloss(row) or None
        return _label_node(label, above, synset=self.index.name(row), gloss=gloss)

    def _make(self, made: list[Node], node: Node, row: int) -> None:
        made.append(node)
        self.row_of[node.id] = row


def _check_below(
    labels: LabelSet,
    rows: Sequence[int | None],
    within: BoolArray,
    index: NounIndex,
    root_row: int,
) -> None:
    outside = [
        f"{label.name!r} ({index.name(row)})"
        for label, row in zip(labels, rows, strict=True)
        if row is not None and not within[row]
    ]
    if outside:
        shown = ", ".join(outside[:10]) + (", ..." if len(outside) > 10 else "")
        raise LabelMismatchError(
            f"{len(outside)} labels are not below {index.name(root_row)}: {shown}",
            hint="choose a root above them, other senses, or leave them out",
        )


def synset_node(index: NounIndex, row: int, above: str | None) -> Node:
    """An inner node that stands for a synset."""
    lemmas = index.lemmas(row)
    return Node(
        id=index.wnid(row),
        parent_id=above,
        name=lemmas[0],
        synset=index.name(row),
        gloss=index.gloss(row) or None,
        aliases=lemmas[1:],
    )


def _label_node(
    label: Label, above: str | None, *, synset: str | None = None, gloss: str | None = None
) -> Node:
    return Node(
        id=label.id,
        parent_id=above,
        name=label.name,
        synset=synset,
        gloss=gloss,
        prompt=label.prompt,
        aliases=label.aliases,
    )


def _with_distinct_prompts(nodes: list[Node]) -> list[Node]:
    """Prompts that tell nodes of the same name apart: by the parent's name, else by the gloss."""
    names = {node.id: node.name for node in nodes}
    by_parent = _retold(nodes, lambda node: names.get(node.parent_id or ""))
    return _retold(by_parent, lambda node: node.gloss)


def _retold(nodes: list[Node], more: Callable[[Node], str | None]) -> list[Node]:
    texts = [(node.prompt or node.name or node.id) for node in nodes]
    count = Counter(text.casefold() for text in texts)
    return [
        node if count[text.casefold()] == 1 else replace(node, prompt=f"{node.name}, {more(node)}")
        for node, text in zip(nodes, texts, strict=True)
    ]
