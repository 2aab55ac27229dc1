"""What a classifier costs: prompts to encode before it is there, bytes to hold once it is."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from robustzs.classifier import Classifier
from robustzs.hierarchy.tree import Hierarchy
from robustzs.labels.templates import get_templates
from robustzs_serving.ingest.calls import ClassifyCall

# Of the trees that ship: nodes and leaves, rounded up. Only the lane of the work depends on it.
_BUILT_IN = {"wordnet": (2_000, 1_000), "wordnet-nouns": (33_000, 26_000), "flat": (1_001, 1_000)}
_PER_NODE = 200  # places in tuples and in the index, and the arrays of a tree's shape
_PER_CLASSIFIER = 8_000  # objects around the arrays: measured as growth of the process


def prompts_needed(call: ClassifyCall, own_templates: str | Sequence[str]) -> int:
    """Prompts that a classifier for this call encodes at most, about.

    Args:
        call: to answer.
        own_templates: of the bundle, for calls that bring none.
    """
    by_nodes = call.options.strategy in ("topdown", "level")
    n_labels = None if call.labels is None else len(call.labels)
    largest = 0
    for tree in call.hierarchy or ("wordnet" if n_labels is None else "flat",):
        n_nodes, n_leaves = (
            (len(tree), tree.n_leaves) if isinstance(tree, Hierarchy) else _BUILT_IN[tree]
        )
        if n_labels is not None and isinstance(tree, str):
            n_nodes, n_leaves = 3 * n_labels, n_labels
        largest = max(largest, n_nodes if by_nodes else n_leaves)
    if call.options.strategy == "hyponyms":
        largest *= 1 + call.options.n_hyponyms
    templates = get_templates(own_templates if call.templates is None else call.templates)
    return largest * len(templates.templates)


def bytes_held(classifier: Classifier) -> int:
    """Bytes that a classifier keeps in memory, about; what classifiers share counts for each."""
    scorer = classifier.scorer
    arrays = [scorer.leaf_classes, *scorer.node_classes, *(scorer.subs or ())]
    held = _PER_CLASSIFIER + sum(array.nbytes for array in arrays)
    return held + sum(map(_of_tree, classifier.forest))


def _of_tree(tree: Hierarchy) -> int:
    texts = 0
    for column in (tree.ids, tree.names, tree.prompts, tree.synsets, tree.glosses):
        texts += sum(map(sys.getsizeof, column))
    texts += sum(sys.getsizeof(alias) for aliases in tree.aliases for alias in aliases)
    for pair in (*tree.dropped_edges, *tree.provenance):
        texts += sum(map(sys.getsizeof, pair))
    texts += sum(sys.getsizeof(rank.name) + 8 * len(rank.nodes) for rank in tree.ranks)
    return texts + sys.getsizeof(tree.name) + _PER_NODE * len(tree)
