"""Hierarchical metrics against a slow second implementation, and properties, on random trees."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustzs.hierarchy.load import load_hierarchy
from robustzs.hierarchy.tree import Hierarchy
from robustzs.hierarchy.walk import walk
from robustzs.metrics.consistency import is_consistent
from robustzs.metrics.curves import (
    calibration_errors_at_depths,
    expected_calibration_error,
    hierarchical_curve,
)
from robustzs.metrics.margins import margins_at_depths
from robustzs.metrics.severity import (
    hierarchical_scores,
    information_scores,
    lca_distance,
    lca_height,
    tree_induced_error,
)
from robustzs.metrics.summary import summarise
from robustzs.metrics.verdicts import (
    answers_at,
    flat_leaves,
    is_right,
    path_ends,
    right_at_depths,
    verdicts_at_depth,
)
from tests.hierarchy.trees import generators, trees


class Slow:
    """The definitions, spelled out with sets of names; nothing shared with what is tested."""

    def __init__(self, tree: Hierarchy) -> None:
        self.parent = [int(p) for p in tree.parent]
        self.children: list[list[int]] = [[] for _ in self.parent]
        for node, above in enumerate(self.parent):
            if above >= 0:
                self.children[above].append(node)
        self.leaves = [node for node, below in enumerate(self.children) if not below]

    def up(self, node: int) -> list[int]:
        return [node] if self.parent[node] < 0 else [node, *self.up(self.parent[node])]

    def down(self, node: int) -> set[int]:
        return {node}.union(*(self.down(child) for child in self.children[node]))

    def below(self, node: int) -> int:
        return len(self.down(node) & set(self.leaves))

    def depth(self, node: int) -> int:
        return len(self.up(node)) - 1

    def height(self, node: int) -> int:
        return max((1 + self.height(child) for child in self.children[node]), default=0)

    def lca(self, u: int, v: int) -> int:
        return next(node for node in self.up(u) if node in self.up(v))

    def right(self, said: int, true: int) -> bool:
        return said in self.up(true) or true in self.up(said)

    def judged(self, said: int, true: int) -> int:
        return true if true in self.up(said) else said

    def cut(self, depth: int) -> list[int]:
        found = set()
        for leaf in self.leaves:
            path = self.up(leaf)[::-1]
            found.add(path[min(depth, len(path) - 1)])
        return sorted(found)


@st.composite
def runs(draw: st.DrawFn) -> tuple[Hierarchy, np.ndarray, np.ndarray]:
    """A tree, node probabilities with ties and certainties, and truths, inner ones among them."""
    tree = draw(trees(max_nodes=25))
    rng = draw(generators())
    n = draw(st.integers(1, 12))
    weights = rng.integers(0, 4, (n, tree.n_leaves)) ** 2 + (rng.random((n, 1)) < 0.5) * 0.25
    weights[weights.sum(axis=1) == 0.0] = 1.0
    node_probs = tree.node_probs(weights / weights.sum(axis=1, keepdims=True))
    return tree, node_probs, rng.integers(0, len(tree), n)


@given(runs(), st.sampled_from(["greedy", "climb"]), st.floats(0.0, 1.0))
def test_answers_are_those_of_walk(
    run: tuple[Hierarchy, np.ndarray, np.ndarray], rule: str, theta: float
) -> None:
    tree, probs, _ = run
    walks = walk(probs, tree, theta=theta, rule=rule)
    assert answers_at(probs, tree, theta=theta, rule=rule).tolist() == [w.answer for w in walks]
    assert path_ends(probs, tree, rule=rule).tolist() == [w.path[-1] for w in walks]
    flat = [int(tree.leaf_nodes[w.flat_top1]) for w in walks]
    assert flat_leaves(probs, tree).tolist() == flat


@given(runs(), st.integers(0, 6))
def test_verdicts_are_those_of_walk_at_a_level(
    run: tuple[Hierarchy, np.ndarray, np.ndarray], depth: int
) -> None:
    tree, probs, _ = run
    walks = walk(probs, tree, theta=0.5, level=depth)
    assert verdicts_at_depth(probs, tree, depth).tolist() == [w.answer for w in walks]


@given(runs())
def test_depth_metrics_agree_with_the_definitions(
    run: tuple[Hierarchy, np.ndarray, np.ndarray],
) -> None:
    tree, probs, truth = run
    slow = Slow(tree)
    right = right_at_depths(probs, truth, tree)
    margins = margins_at_depths(probs, truth, tree)
    errors = calibration_errors_at_depths(probs, truth, tree)
    for depth in range(int(tree.depth.max()) + 1):
        sure, outcomes = [], []
        for row, true in enumerate(truth.tolist()):
            cut = slow.cut(depth)
            said = max(cut, key=lambda node: (probs[row, node], -node))
            asked = slow.up(true)[::-1][min(depth, slow.depth(true))]
            rivals = [probs[row, node] for node in cut if not slow.right(node, asked)]
            assert bool(right[row, depth]) == slow.right(said, true)
            ahead = math.inf
            if rivals:
                tiny = 1e-38
                ahead = math.log(max(probs[row, asked], tiny)) - math.log(max(*rivals, tiny))
            assert margins[row, depth] == pytest.approx(ahead, rel=1e-4, abs=1e-4)
            sure.append(float(min(probs[row, said], 1.0)))
            outcomes.append(slow.right(said, true))
        gap = 0.0
        for i in range(15):
            inside = [j for j, c in enumerate(sure) if i / 15 < c <= (i + 1) / 15 or (i == c == 0)]
            gap += abs(sum(outcomes[j] - sure[j] for j in inside))
        assert errors[depth] == pytest.approx(gap / len(truth), abs=1e-9)


@given(trees(max_nodes=25), generators())
def test_severity_agrees_with_the_definitions(tree: Hierarchy, rng: np.random.Generator) -> None:
    slow = Slow(tree)
    said, truth = rng.integers(0, len(tree), (2, 8))
    pairs = list(zip(said.tolist(), truth.tolist(), strict=True))
    assert is_right(said, truth, tree).tolist() == [slow.right(p, t) for p, t in pairs]
    judged = [(slow.judged(p, t), t) for p, t in pairs]
    heights = [0 if slow.judged(p, t) == t else slow.height(slow.lca(p, t)) for p, t in pairs]
    assert lca_height(said, truth, tree).tolist() == heights
    edges = [len(set(slow.up(p)) ^ set(slow.up(t))) for p, t in judged]
    assert tree_induced_error(said, truth, tree).tolist() == edges
    steps = [slow.depth(t) - slow.depth(slow.lca(p, t)) for p, t in judged]
    assert lca_distance(said, truth, tree, by="depth").tolist() == steps

    def bits(node: int) -> float:
        return math.log2(len(slow.leaves) / slow.below(node))

    precision, recall = information_scores(said, truth, tree)
    for row, (p, t) in enumerate(judged):
        shared = bits(slow.lca(p, t))
        assert precision[row] == pytest.approx(shared / bits(p) if bits(p) else 1.0)
        assert recall[row] == pytest.approx(shared / bits(t) if bits(t) else 1.0)

    a = [set(slow.up(p)) - {0} for p, _ in judged]
    b = [set(slow.up(t)) - {0} for _, t in judged]
    both = sum(len(x & y) for x, y in zip(a, b, strict=True))
    n_a, n_b = sum(map(len, a)), sum(map(len, b))
    scores = hierarchical_scores(said, truth, tree)
    assert scores.precision == pytest.approx(both / n_a if n_a else 1.0)
    assert scores.recall == pytest.approx(both / n_b if n_b else 1.0)


@given(trees(max_nodes=25), generators())
def test_consistency_agrees_with_the_definition(tree: Hierarchy, rng: np.random.Generator) -> None:
    slow = Slow(tree)
    logits = rng.integers(0, 3, (8, len(tree))).astype(float)  # many ties
    said = rng.choice(slow.leaves, 8)
    truth = rng.integers(0, len(tree), 8)
    expected = []
    for row, (p, t) in enumerate(zip(said.tolist(), truth.tolist(), strict=True)):
        steps = [
            max(slow.children[slow.parent[node]], key=lambda c, row=row: (logits[row, c], -c))
            == node
            for node in slow.up(t)[:-1]
        ]
        expected.append(slow.right(p, t) and all(steps))
    assert is_consistent(logits, said, truth, tree).tolist() == expected


@given(runs(), st.sampled_from(["greedy", "climb"]))
def test_curve_has_every_operating_point(
    run: tuple[Hierarchy, np.ndarray, np.ndarray], rule: str
) -> None:
    tree, probs, truth = run
    curve = hierarchical_curve(probs, truth, tree, rule=rule)
    for theta, specificity, accuracy in zip(
        curve.theta, curve.specificity, curve.accuracy, strict=True
    ):
        answers = answers_at(probs, tree, theta=float(theta), rule=rule)
        assert specificity == pytest.approx(tree.specificity[answers].mean(), abs=1e-6)
        assert accuracy == pytest.approx(is_right(answers, truth, tree).mean(), abs=1e-9)
    assert np.all(np.diff(curve.theta) < 0.0)
    assert np.all(np.diff(curve.specificity) >= -1e-9)
    assert np.all(np.diff(curve.accuracy) <= 1e-9)  # deeper is never more often right
    assert 0.0 <= curve.area <= 1.0


@given(runs())
def test_right_at_depth_is_implied_by_a_positive_margin(
    run: tuple[Hierarchy, np.ndarray, np.ndarray],
) -> None:
    tree, probs, _ = run
    truth = tree.leaf_nodes[np.arange(len(probs)) % tree.n_leaves]
    margins = margins_at_depths(probs, truth, tree)
    right = right_at_depths(probs, truth, tree)
    assert np.all(right[margins > 1e-6])
    assert not np.any(right[margins < -1e-6])
    assert np.all(right[:, 0])


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40))
def test_calibration_error_is_bounded_by_the_mean_gap(rows: list[tuple[float, bool]]) -> None:
    sure, right = map(list, zip(*rows, strict=True))
    overall = abs(np.mean(right) - np.mean(sure))
    one_bin = expected_calibration_error(sure, right, n_bins=1)
    assert one_bin == pytest.approx(overall, abs=1e-9)
    assert one_bin - 1e-9 <= expected_calibration_error(sure, right) <= 1.0


@settings(max_examples=5)
@given(generators())
def test_imagenet_takes_seconds(rng: np.random.Generator) -> None:
    tree = load_hierarchy(["wordnet"], None, on_ambiguous="error", on_unknown="error").trees[0]
    weights = rng.random((500, tree.n_leaves), np.float32) ** 30
    probs = tree.node_probs(weights / weights.sum(axis=1, keepdims=True))
    truth = tree.leaf_nodes[rng.integers(0, tree.n_leaves, 500)]
    start = time.process_time()
    found = summarise(probs, truth, tree, theta=0.65)
    assert time.process_time() - start < 5.0  # 50,000 images took 10 s on one core
    assert found.depths[-1].accuracy == found.top1
