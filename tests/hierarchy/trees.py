"""Random and hand-made trees for the tests of hierarchies."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from robustzs.hierarchy.build import Node
from robustzs.hierarchy.tree import Hierarchy


def random_nodes(parents: list[int]) -> list[Node]:
    """One node per entry; ``parents[i]`` is an earlier node, -1 for the root."""
    return [
        Node(id=f"n{i}", parent_id=None if p < 0 else f"n{p}", name=f"node {i}")
        for i, p in enumerate(parents)
    ]


@st.composite
def parent_lists(draw: st.DrawFn, max_nodes: int = 40) -> list[int]:
    """Parents before children, shapes from chains to stars."""
    n = draw(st.integers(1, max_nodes))
    return [-1, *(draw(st.integers(0, i - 1)) for i in range(1, n))]


@st.composite
def trees(draw: st.DrawFn, max_nodes: int = 40) -> Hierarchy:
    return Hierarchy.from_nodes(random_nodes(draw(parent_lists(max_nodes))), name="random")


@st.composite
def generators(draw: st.DrawFn) -> np.random.Generator:
    return np.random.default_rng(draw(st.integers(0, 2**32 - 1)))


def dense_rollup(tree: Hierarchy) -> np.ndarray:
    """float64 [n_nodes, n_leaves], from parents alone: 1 where the leaf is the node or below it."""
    rollup = np.zeros((len(tree), tree.n_leaves))
    for j, leaf in enumerate(tree.leaf_nodes):
        node = int(leaf)
        while node >= 0:
            rollup[node, j] = 1.0
            node = int(tree.parent[node])
    return rollup


def animals() -> Hierarchy:
    """entity -> animal -> dog -> (poodle, husky), cat; vehicle -> (car, bus)."""
    edges = {
        "entity": None,
        "vehicle": "entity",
        "animal": "entity",
        "dog": "animal",
        "cat": "animal",
        "car": "vehicle",
        "bus": "vehicle",
        "poodle": "dog",
        "husky": "dog",
    }
    return Hierarchy.from_nodes([Node(id=i, parent_id=p) for i, p in edges.items()], name="animals")
