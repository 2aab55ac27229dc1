from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustzs.errors import InferenceError, LabelMismatchError, UnknownNodeError, UsageError
from robustzs.hierarchy.build import Node
from robustzs.hierarchy.inference import hyponyms, level, marginal, topdown
from robustzs.hierarchy.tree import Hierarchy
from robustzs.hierarchy.walk import Walk, walk
from tests.hierarchy.trees import animals, dense_rollup, generators, random_nodes, trees

STRATEGIES = ("marginal", "topdown", "level", "hyponyms")


def node_probs(
    strategy: str, tree: Hierarchy, rng: np.random.Generator, *, root: int = 0, n_rows: int = 3
) -> np.ndarray:
    """A strategy on random logits, sharp enough that whole branches get next to nothing."""
    node_logits = rng.normal(0, 8, (n_rows, len(tree)))
    leaf_logits = node_logits[:, tree.leaf_nodes]
    if strategy == "marginal":
        return marginal(leaf_logits, tree, root=root)
    if strategy == "topdown":
        return topdown(node_logits, tree, root=root)
    if strategy == "level":
        return level(node_logits, tree, root=root)
    sub_to_leaf = rng.permutation(np.repeat(np.arange(tree.n_leaves), 2))
    sub_logits = rng.normal(0, 8, (n_rows, len(sub_to_leaf)))
    return hyponyms(sub_logits, sub_to_leaf, tree, leaf_logits=leaf_logits, root=root)


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(np.float64(logits) - np.max(logits, axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


# ---- what every strategy promises ----------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=30)
@given(tree=trees(), rng=generators(), data=st.data())
def test_promises(
    strategy: str, tree: Hierarchy, rng: np.random.Generator, data: st.DataObject
) -> None:
    root = data.draw(st.integers(0, len(tree) - 1))
    probs = node_probs(strategy, tree, rng, root=root)
    assert probs.dtype == np.float32
    above = list(tree.ancestors_or_self(root))
    inside = np.arange(root, tree.node_end[root])
    assert (probs[:, above] == 1.0).all()
    assert (probs[:, 1:] <= probs[:, tree.parent[1:]]).all()
    beside = np.setdiff1d(np.arange(len(tree)), [*above, *inside])
    assert (probs[:, beside] == 0.0).all()
    for i in inside:
        if not tree.is_leaf(i):
            total = probs[:, tree.children(i)].sum(axis=1, dtype=np.float64)
            assert (total <= probs[:, i] + 1e-6).all()
            if strategy != "level":
                np.testing.assert_allclose(total, probs[:, i], rtol=0, atol=1e-6)


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=30)
@given(tree=trees(), rng=generators(), data=st.data())
def test_a_root_gives_what_its_own_subtree_gives(
    strategy: str, tree: Hierarchy, rng: np.random.Generator, data: st.DataObject
) -> None:
    root = data.draw(st.integers(0, len(tree) - 1))
    inside = slice(root, int(tree.node_end[root]))
    leaves = slice(int(tree.leaf_start[root]), int(tree.leaf_end[root]))
    small = tree.subtree(root)
    logits = rng.normal(0, 8, (2, len(tree)))
    own = logits[:, tree.leaf_nodes]
    if strategy == "marginal":
        whole, part = marginal(own, tree, root=root), marginal(own[:, leaves], small)
    elif strategy == "hyponyms":
        subs = np.arange(tree.n_leaves)
        whole = hyponyms(own, subs, tree, leaf_logits=own, root=root)
        part = hyponyms(own[:, leaves], subs[: small.n_leaves], small, leaf_logits=own[:, leaves])
    else:
        score: Callable[..., np.ndarray] = {"topdown": topdown, "level": level}[strategy]
        whole, part = score(logits, tree, root=root), score(logits[:, inside], small)
    np.testing.assert_allclose(whole[:, inside], part, rtol=1e-5, atol=1e-7)


def test_a_root_stays_exact_where_its_mass_vanishes() -> None:
    """e^-400 of the mass is zero in float64; the ratio among the leaves there is not."""
    tree = animals()
    logits = [[0.0, np.log(3.0), 400.0, 400.0, 400.0]]  # car, bus, then animals
    probs = marginal(logits, tree, root=tree.index("vehicle"))
    assert probs[0, tree.index("car")] == pytest.approx(0.25)
    assert probs[0, tree.index("bus")] == pytest.approx(0.75)
    with pytest.raises(UnknownNodeError):
        marginal(logits, tree, root=99)


# ---- each strategy against its definition --------------------------------------------------------


@given(trees(), generators())
def test_marginal_is_softmax_times_rollup(tree: Hierarchy, rng: np.random.Generator) -> None:
    logits = rng.normal(0, 5, (2, tree.n_leaves))
    expected = softmax(logits) @ dense_rollup(tree).T
    np.testing.assert_allclose(marginal(logits, tree), expected, rtol=0, atol=1e-6)


@given(trees(), generators())
def test_topdown_multiplies_sibling_softmaxes(tree: Hierarchy, rng: np.random.Generator) -> None:
    logits = rng.normal(0, 5, len(tree))
    expected = np.ones(len(tree))
    for i in range(1, len(tree)):
        siblings = tree.children(int(tree.parent[i]))
        expected[i] = expected[tree.parent[i]] * softmax(logits[siblings])[siblings == i].item()
    np.testing.assert_allclose(topdown(logits[None], tree)[0], expected, rtol=1e-5, atol=1e-12)


@given(trees(), generators())
def test_level_scales_each_depth_into_its_parents(
    tree: Hierarchy, rng: np.random.Generator
) -> None:
    logits = rng.normal(0, 5, len(tree))
    expected = np.ones(len(tree))
    for depth in range(1, int(tree.depth.max()) + 1):
        cut = np.unique(tree.cut(depth))
        q = np.zeros(len(tree))
        q[cut] = softmax(logits[cut])
        for i in np.flatnonzero(tree.depth == depth):
            parent = int(tree.parent[i])
            family = q[tree.children(parent)].sum()
            expected[i] = q[i] * min(1.0, expected[parent] / family)
    np.testing.assert_allclose(level(logits[None], tree)[0], expected, rtol=1e-5, atol=1e-12)


def test_level_listens_to_each_level_where_topdown_sees_siblings_only() -> None:
    """A weak branch at its level gives nothing away to a child that merely beats its sibling."""
    tree = Hierarchy.from_nodes(random_nodes([-1, 0, 0, 1, 1, 2, 2]), name="t")
    logits = np.zeros((1, len(tree)))
    a, b = tree.index("n1"), tree.index("n2")
    logits[0, a], logits[0, b] = 1.0, 0.0
    logits[0, tree.index("n5")] = 9.0  # a child of b: level 2 contradicts level 1
    below_a = tree.children(a)
    assert topdown(logits, tree)[0, below_a].sum() == pytest.approx(1 / (1 + np.exp(-1)))
    assert level(logits, tree)[0, below_a].sum() < 0.001
    assert level(logits, tree)[0, tree.index("n5")] <= level(logits, tree)[0, b]


@given(trees(), generators(), st.booleans())
def test_hyponyms_choose_what_chils_chooses(
    tree: Hierarchy, rng: np.random.Generator, reweight: bool
) -> None:
    """``conf_pred`` of the paper's code: p_sub * p_super(parent), argmax, mapped to its parent."""
    n_subs = tree.n_leaves + int(rng.integers(0, 20))
    extra = rng.integers(0, tree.n_leaves, n_subs - tree.n_leaves)
    sub_to_leaf = rng.permutation(np.concatenate([np.arange(tree.n_leaves), extra]))
    sub_logits = rng.normal(0, 3, (4, n_subs))
    leaf_logits = rng.normal(0, 3, (4, tree.n_leaves))
    scores = softmax(sub_logits)
    if reweight:
        scores = scores * softmax(leaf_logits)[:, sub_to_leaf]
    given_logits = leaf_logits if reweight else None

    best = hyponyms(sub_logits, sub_to_leaf, tree, leaf_logits=given_logits, reduce="max")
    chosen = best[:, tree.leaf_nodes].argmax(axis=1)
    assert chosen.tolist() == sub_to_leaf[scores.argmax(axis=1)].tolist()

    summed = hyponyms(sub_logits, sub_to_leaf, tree, leaf_logits=given_logits)
    expected = np.stack(
        [scores[:, sub_to_leaf == j].sum(axis=1) for j in range(tree.n_leaves)], axis=1
    )
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(summed[:, tree.leaf_nodes], expected, rtol=0, atol=1e-6)


def test_one_sub_label_each_and_no_reweighting_is_marginal() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (4, 5))
    same = hyponyms(logits, np.arange(5), animals())
    np.testing.assert_allclose(same, marginal(logits, animals()), rtol=0, atol=1e-7)


def test_hyponyms_need_every_leaf() -> None:
    logits = np.zeros((1, 5))
    with pytest.raises(LabelMismatchError, match=r"leaves \[4\] have no sub-labels"):
        hyponyms(logits, [0, 1, 2, 3, 3], animals())
    for outside in (5, -1):
        with pytest.raises(LabelMismatchError, match="outside 0 to 4"):
            hyponyms(np.zeros((1, 6)), [0, 1, 2, 3, 4, outside], animals())


@pytest.mark.parametrize("score", [marginal, topdown, level])
def test_logits_must_fit_and_be_finite(score: Callable[..., np.ndarray]) -> None:
    tree = animals()
    n_columns = tree.n_leaves if score is marginal else len(tree)
    with pytest.raises(LabelMismatchError, match=r"\(1, 3\)"):
        score(np.zeros((1, 3)), tree)
    with pytest.raises(LabelMismatchError):
        score(np.zeros(n_columns), tree)
    with pytest.raises(InferenceError, match="not all finite"):
        score(np.full((1, n_columns), np.nan), tree)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_tree_of_one_node(strategy: str) -> None:
    dot = Hierarchy.from_nodes([Node(id="thing")], name="dot")
    probs = node_probs(strategy, dot, np.random.default_rng(0), n_rows=1)
    assert probs.tolist() == [[1.0]]
    assert walk(probs, dot, theta=0.5) == [Walk((0,), 0, 0, "leaf")]


# ---- the walk ------------------------------------------------------------------------------------


def lopsided() -> tuple[Hierarchy, np.ndarray]:
    """One cat at 0.30 against seven dogs at 0.10 each."""
    dogs = [Node(id=f"dog{i}", parent_id="dog") for i in range(7)]
    nodes = [Node(id="carnivore"), *(Node(id=i, parent_id="carnivore") for i in ("cat", "dog"))]
    tree = Hierarchy.from_nodes([*nodes, *dogs], name="lopsided")
    return tree, tree.node_probs([[0.3, *[0.1] * 7]])


def test_greedy_and_climb_differ_on_lopsided_labels() -> None:
    tree, probs = lopsided()
    (greedy,) = walk(probs, tree, theta=0.5)
    (climb,) = walk(probs, tree, theta=0.5, rule="climb")
    assert tree.ids[greedy.answer] == "dog"
    assert tree.ids[climb.answer] == "carnivore"
    assert tree.ids[climb.path[-1]] == "cat"
    assert greedy.flat_top1 == climb.flat_top1 == 0
    assert (greedy.reason, climb.reason) == ("theta", "theta")


def test_theta_is_exceeded_strictly_and_the_root_always_answers() -> None:
    tree, probs = lopsided()
    dog = float(probs[0, tree.index("dog")])
    assert tree.ids[walk(probs, tree, theta=np.nextafter(dog, 0))[0].answer] == "dog"
    assert tree.ids[walk(probs, tree, theta=dog)[0].answer] == "carnivore"
    assert walk(probs, tree, theta=1.0)[0].answer == 0
    assert walk(probs, tree, theta=0.0)[0].reason == "leaf"


def test_ties_go_to_the_lowest_index() -> None:
    tree = animals()
    (found,) = walk(tree.node_probs([[0.2] * 5]), tree, theta=0.0)
    assert [tree.ids[i] for i in found.path] == ["entity", "animal", "dog", "poodle"]
    (even,) = walk(tree.node_probs([[0.25, 0.25, 0.25, 0.0, 0.25]]), tree, theta=0.0)
    assert [tree.ids[i] for i in even.path] == ["entity", "vehicle", "car"]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("rule", ["greedy", "climb"])
@settings(max_examples=20)
@given(tree=trees(), rng=generators(), data=st.data())
def test_paths_are_paths_and_depth_falls_with_theta(
    strategy: str, rule: str, tree: Hierarchy, rng: np.random.Generator, data: st.DataObject
) -> None:
    root = data.draw(st.integers(0, len(tree) - 1))
    probs = node_probs(strategy, tree, rng, root=root)
    thetas = sorted(data.draw(st.lists(st.floats(0, 1), min_size=2, max_size=5)))
    runs = [walk(probs, tree, theta=theta, rule=rule, root=root) for theta in thetas]
    for row, along_theta in zip(probs, zip(*runs, strict=True), strict=True):
        first = along_theta[0]
        assert first.path[0] == root
        assert tree.is_leaf(first.path[-1])
        assert all(
            tree.parent[below] == above
            for above, below in zip(first.path, first.path[1:], strict=False)
        )
        if rule == "climb":
            assert first.path[-1] == tree.leaf_nodes[first.flat_top1]
        for theta, found in zip(thetas, along_theta, strict=True):
            assert found.path == first.path
            higher = [float(row[i]) > theta for i in found.path[1:]]
            assert found.stop == sum(higher)
            assert higher == sorted(higher, reverse=True)
        stops = [found.stop for found in along_theta]
        assert stops == sorted(stops, reverse=True)


@given(trees(), generators(), st.floats(0.5, 1.0))
def test_greedy_is_the_most_specific_node_above_a_majority(
    tree: Hierarchy, rng: np.random.Generator, theta: float
) -> None:
    probs = node_probs("marginal", tree, rng)
    for row, found in zip(probs, walk(probs, tree, theta=theta), strict=True):
        above = np.flatnonzero(row.astype(np.float64) > theta)
        deepest = above[np.argmax(tree.depth[above])] if above.size else 0
        assert found.answer == deepest


@given(trees(), generators())
def test_relabelling_leaves_does_not_change_the_answer(
    tree: Hierarchy, rng: np.random.Generator
) -> None:
    """Other ids for the same shape: the same walk."""
    renamed = Hierarchy.from_nodes(
        [
            Node(id=f"z{i}", parent_id=None if p < 0 else f"z{p}")
            for i, p in enumerate(tree.parent.tolist())
        ],
        name="renamed",
    )
    probs = node_probs("marginal", tree, rng)
    assert walk(probs, tree, theta=0.6) == walk(probs, renamed, theta=0.6)


def test_forced_depth_takes_the_best_node_of_the_cut() -> None:
    tree = animals()
    # animal 0.55 leads at depth 1, but at depth 2 the car (0.4) beats dog (0.3) and cat (0.25)
    probs = tree.node_probs([[0.4, 0.05, 0.2, 0.1, 0.25]])
    (first,) = walk(probs, tree, theta=0.9, level=1)
    (second,) = walk(probs, tree, theta=0.9, level=2)
    assert (tree.ids[first.answer], first.reason) == ("animal", "level")
    assert tree.ids[second.answer] == "car"
    assert [tree.ids[i] for i in second.path] == ["entity", "vehicle", "car"]
    (climb,) = walk(probs, tree, theta=0.9, level=1, rule="climb")
    assert tree.ids[climb.answer] == "vehicle"
    (root,) = walk(probs, tree, theta=0.9, level=0)
    assert root.answer == 0
    assert len(root.path) == 4


def test_forced_depth_answers_with_a_leaf_where_the_path_is_shorter() -> None:
    tree = animals()
    (found,) = walk(tree.node_probs([[0.9, 0.1, 0, 0, 0]]), tree, theta=1.0, level=3)
    assert tree.ids[found.answer] == "car"
    assert found.stop == len(found.path) - 1


def test_forced_rank_and_root() -> None:
    tree = Hierarchy.from_nodes(
        animals().to_nodes(), name="ranked", ranks={"class": ["animal"], "species": ["dog", "cat"]}
    )
    probs = tree.node_probs([[0.3, 0.1, 0.2, 0.1, 0.3]])
    (species,) = walk(probs, tree, theta=0.9, level="species")
    assert tree.ids[species.answer] == "car"  # ties with dog and cat, and comes first
    animal = tree.index("animal")
    inside = marginal(np.log([[0.3, 0.1, 0.2, 0.1, 0.3]]), tree, root=animal)
    (found,) = walk(inside, tree, theta=0.9, level="species", root=animal)
    assert [tree.ids[i] for i in found.path[: found.stop + 1]] == ["animal", "dog"]
    (high,) = walk(inside, tree, theta=0.9, level=0, root=animal)
    assert tree.ids[high.answer] == "animal"
    with pytest.raises(UnknownNodeError, match="class, species"):
        walk(probs, tree, theta=0.5, level="order")


@given(trees(), generators(), st.integers(0, 6), st.sampled_from(["greedy", "climb"]))
def test_forced_depths_lie_on_the_path(
    tree: Hierarchy, rng: np.random.Generator, depth: int, rule: str
) -> None:
    probs = node_probs("topdown", tree, rng)
    for row, found in zip(probs, walk(probs, tree, theta=0.5, rule=rule, level=depth), strict=True):
        cut = np.unique(tree.cut(depth))
        assert found.answer in cut
        assert found.path == (
            *tree.ancestors_or_self(found.answer),
            *found.path[found.stop + 1 :],
        )
        if rule == "greedy":
            assert row[found.answer] == row[cut].max()


def test_max_depth() -> None:
    tree = animals()
    probs = tree.node_probs([[0, 0, 1, 0, 0]])
    (found,) = walk(probs, tree, theta=0.5, max_depth=2)
    assert (tree.ids[found.answer], found.reason) == ("dog", "max-depth")
    assert len(found.path) == 4
    (free,) = walk(probs, tree, theta=0.5, max_depth=3)
    assert free.reason == "leaf"
    (cautious,) = walk(tree.node_probs([[0.2] * 5]), tree, theta=0.5, max_depth=2)
    assert (tree.ids[cautious.answer], cautious.reason) == ("animal", "theta")


def test_flat_top1_may_come_from_elsewhere() -> None:
    tree = animals()
    probs = tree.node_probs([[0.1, 0.1, 0.5, 0.2, 0.1]])
    (found,) = walk(probs, tree, theta=0.5, rule="climb", flat_top1=[4])
    assert tree.ids[found.path[-1]] == "cat"
    for wrong in ([5], [-1], [0, 0], 1):
        with pytest.raises(LabelMismatchError, match="flat_top1"):
            walk(probs, tree, theta=0.5, flat_top1=wrong)
    with pytest.raises(LabelMismatchError, match="from 2 to 4"):
        walk(probs, tree, theta=0.5, flat_top1=[0], root=tree.index("animal"))


def test_hidden_nodes_are_never_part_of_an_answer() -> None:
    """Depths stay those of the tree; the spacer at depth 1 is stepped over."""
    nodes = [
        Node(id="thing"),
        Node(id="dummy1", parent_id="thing", hidden=True),
        Node(id="pet", parent_id="dummy1"),
        Node(id="dog", parent_id="pet"),
        Node(id="cat", parent_id="pet"),
        Node(id="rock", parent_id="thing"),
    ]
    tree = Hierarchy.from_nodes(nodes, name="spaced")
    probs = tree.node_probs([[0.45, 0.45, 0.1]])
    (found,) = walk(probs, tree, theta=0.5)
    assert [tree.ids[i] for i in found.path] == ["thing", "pet", "dog"]
    assert tree.ids[found.answer] == "pet"
    assert tree.depth[found.answer] == 2
    (forced,) = walk(probs, tree, theta=0.5, level=1)
    assert tree.ids[forced.answer] == "thing"
    (capped,) = walk(probs, tree, theta=0.5, max_depth=1)
    assert tree.ids[capped.answer] == "thing"


@pytest.mark.parametrize(
    "options",
    [
        {"theta": np.nan},
        {"theta": -0.1},
        {"theta": 1.1},
        {"theta": np.inf},
        {"theta": 0.5, "rule": "leap"},
        {"theta": 0.5, "max_depth": -1},
        {"theta": 0.5, "level": -1},
    ],
)
def test_options_out_of_range(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        walk(np.ones((1, 9)), animals(), **options)


def test_shapes_and_roots_must_fit() -> None:
    with pytest.raises(LabelMismatchError, match="9 nodes"):
        walk(np.ones((1, 5)), animals(), theta=0.5)
    with pytest.raises(UnknownNodeError):
        walk(np.ones((1, 9)), animals(), theta=0.5, root=9)


def test_an_empty_batch() -> None:
    tree = animals()
    assert walk(marginal(np.empty((0, 5)), tree), tree, theta=0.5) == []
    assert topdown(np.empty((0, 9)), tree).shape == level(np.empty((0, 9)), tree).shape == (0, 9)
