from __future__ import annotations

import json
import pickle
from importlib.resources import files

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustzs.errors import (
    HierarchyDigestError,
    HierarchyError,
    HierarchyFormatError,
    HierarchyLimitError,
    LabelMismatchError,
    UnknownNodeError,
    UsageError,
)
from robustzs.hierarchy.build import BuildOptions, Node
from robustzs.hierarchy.limits import HierarchyLimits
from robustzs.hierarchy.shape import TreeShape
from robustzs.hierarchy.tree import Hierarchy
from tests.hierarchy.trees import animals, dense_rollup, generators, random_nodes, trees


def names_of(tree: Hierarchy, nodes: object) -> list[str]:
    return [tree.ids[i] for i in np.atleast_1d(np.asarray(nodes))]


def test_depth_first_with_leaf_ranges() -> None:
    tree = animals()
    assert tree.ids == (
        *("entity", "vehicle", "car", "bus"),
        *("animal", "dog", "poodle", "husky", "cat"),
    )
    assert tree.leaf_ids == ("car", "bus", "poodle", "husky", "cat")
    assert tree.depth.tolist() == [0, 1, 2, 2, 1, 2, 3, 3, 2]
    assert tree.height.tolist() == [3, 1, 0, 0, 2, 1, 0, 0, 0]
    assert tree.n_leaf_descendants.tolist() == [5, 2, 1, 1, 3, 2, 1, 1, 1]
    assert names_of(tree, tree.children(tree.index("animal"))) == ["dog", "cat"]
    assert tree.children(tree.index("cat")).size == 0


@given(trees())
def test_shape_agrees_with_the_parents(tree: Hierarchy) -> None:
    rollup = dense_rollup(tree)
    for i in range(len(tree)):
        covered = np.arange(tree.leaf_start[i], tree.leaf_end[i])
        assert np.flatnonzero(rollup[i]).tolist() == covered.tolist()
        path = tree.ancestors_or_self(i)
        assert path[0] == 0
        assert path[-1] == i
        assert len(path) == tree.depth[i] + 1
        assert tree.children(i).tolist() == np.flatnonzero(tree.parent == i).tolist()
        assert tree.is_leaf(i) == (tree.children(i).size == 0)
    assert (tree.parent[1:] < np.arange(1, len(tree))).all()


@given(trees(), st.data())
def test_lca_is_the_deepest_common_ancestor(tree: Hierarchy, data: st.DataObject) -> None:
    u = data.draw(st.integers(0, len(tree) - 1))
    v = data.draw(st.integers(0, len(tree) - 1))
    common = set(tree.ancestors_or_self(u)) & set(tree.ancestors_or_self(v))
    assert int(tree.lca(u, v)) == max(common, key=lambda i: tree.depth[i])
    everyone = np.arange(len(tree))
    assert tree.lca(everyone, u).tolist() == [int(tree.lca(i, u)) for i in everyone]


@given(trees(), generators(), st.integers(1, 4))
def test_node_probs_equal_a_dense_rollup(
    tree: Hierarchy, rng: np.random.Generator, n_rows: int
) -> None:
    leaf_probs = rng.dirichlet(np.full(tree.n_leaves, 0.2), size=n_rows)
    probs = tree.node_probs(leaf_probs)
    assert probs.dtype == np.float32
    np.testing.assert_allclose(probs, leaf_probs @ dense_rollup(tree).T, rtol=0, atol=1e-7)
    assert (probs[:, 0] == 1.0).all()
    assert (probs >= 0.0).all()
    assert (probs[:, 1:] <= probs[:, tree.parent[1:]]).all()
    for i in range(len(tree)):
        if not tree.is_leaf(i):
            total = probs[:, tree.children(i)].sum(axis=1, dtype=np.float64)
            np.testing.assert_allclose(total, probs[:, i], rtol=0, atol=1e-6)


@given(trees(), generators())
def test_relabelling_leaves_moves_probabilities_with_them(
    tree: Hierarchy, rng: np.random.Generator
) -> None:
    """Other ids, another order of children: the same mass at the same nodes."""
    order = rng.permutation(len(tree))
    nodes = [tree.to_nodes()[i] for i in order]
    shuffled = Hierarchy.from_nodes(nodes, name="shuffled")
    leaf_probs = rng.dirichlet(np.ones(tree.n_leaves))
    by_id = dict(zip(tree.leaf_ids, leaf_probs, strict=True))
    moved = shuffled.node_probs([[by_id[i] for i in shuffled.leaf_ids]])[0]
    original = tree.node_probs([leaf_probs])[0]
    np.testing.assert_allclose(
        [moved[shuffled.index(node_id)] for node_id in tree.ids], original, rtol=0, atol=1e-7
    )


@pytest.mark.parametrize(
    "leaf_probs",
    [
        [[0.5, 0.5, 0.5, 0.5, 0.5]],
        [[1.5, -0.5, 0.0, 0.0, 0.0]],
        [[np.nan, 0.25, 0.25, 0.25, 0.25]],
    ],
)
def test_node_probs_want_probabilities(leaf_probs: list[list[float]]) -> None:
    with pytest.raises(HierarchyError, match="not probabilities"):
        animals().node_probs(leaf_probs)


def test_node_probs_want_one_column_per_leaf() -> None:
    with pytest.raises(LabelMismatchError, match=r"\(1, 2\); the tree has 5 leaves"):
        animals().node_probs([[0.5, 0.5]])
    with pytest.raises(LabelMismatchError):
        animals().node_probs([0.2] * 5)


def test_specificity() -> None:
    tree = animals()
    assert tree.specificity[0] == 0.0
    assert (tree.specificity[tree.leaf_nodes] == 1.0).all()
    assert tree.specificity[tree.index("animal")] == pytest.approx(1 - np.log(3) / np.log(5))
    chain = Hierarchy.from_nodes(random_nodes([-1, 0, 1]), name="chain")
    assert chain.specificity.tolist() == [1.0, 1.0, 1.0]


def test_arrays_are_read_only_even_after_pickling() -> None:
    tree = pickle.loads(pickle.dumps(animals()))
    assert tree == animals()
    assert hash(tree) == hash(animals())
    for array in (tree.parent, tree.depth, tree.leaf_nodes, tree.node_end, tree.hidden):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 7
    with pytest.raises(ValueError, match="read-only"):
        tree.children(0)[0] = 7


def test_columns_must_be_in_depth_first_order() -> None:
    with pytest.raises(HierarchyError, match="depth-first"):
        TreeShape(parent=np.array([-1, 0, 0, 1], dtype=np.int32))
    with pytest.raises(HierarchyError, match="starts with its root"):
        TreeShape(parent=np.array([], dtype=np.int32))


# ---- names ---------------------------------------------------------------------------------------


def named_tree() -> Hierarchy:
    return Hierarchy.from_nodes(
        [
            Node(id="n1", name="bank"),
            Node(id="n2", parent_id="n1", name="bank", synset="bank.n.01"),
            Node(
                id="n3", parent_id="n1", name="River Bank", prompt="a river bank", aliases=("rb",)
            ),
        ],
        name="banks",
    )


def test_find_by_id_synset_and_name() -> None:
    tree = named_tree()
    assert tree.find("n3") == tree.find("river bank") == tree.find("RIVER_BANK") == 2
    assert tree.find("bank.n.01") == 1
    with pytest.raises(UnknownNodeError, match="n1, n2"):
        tree.find("bank")
    with pytest.raises(UnknownNodeError, match="'shore'"):
        tree.find("shore")


def test_labels_are_the_leaves() -> None:
    bank, river = named_tree().labels
    assert (bank.id, bank.name, bank.prompt, bank.synset) == ("n2", "bank", "bank", "bank.n.01")
    assert (river.id, river.prompt, river.aliases) == ("n3", "a river bank", ("rb",))


# ---- smaller trees -------------------------------------------------------------------------------


def test_subtree() -> None:
    tree = animals()
    below = tree.subtree(tree.index("animal"))
    assert below.ids == ("animal", "dog", "poodle", "husky", "cat")
    assert below.parent.tolist() == [-1, 0, 1, 1, 0]
    assert tree.subtree(0) is tree
    with pytest.raises(UnknownNodeError):
        tree.subtree(99)


def test_restrict_drops_leaves_and_collapses_single_children() -> None:
    small = animals().restrict(["cat", "poodle", "car"])
    assert small.ids == ("entity", "car", "animal", "poodle", "cat")
    assert small.parent.tolist() == [-1, 0, 0, 2, 2]
    assert animals().restrict(["poodle"]).ids == ("entity", "poodle")
    with pytest.raises(LabelMismatchError, match=r"\['dog', 'mouse'\]"):
        animals().restrict(["cat", "dog", "mouse"])
    with pytest.raises(LabelMismatchError, match="nothing"):
        animals().restrict([])


@given(trees(), st.data())
def test_restrict_keeps_leaves_and_ancestry(tree: Hierarchy, data: st.DataObject) -> None:
    wanted = data.draw(st.sets(st.sampled_from(tree.leaf_ids), min_size=1))
    small = tree.restrict(wanted)
    assert small.leaf_ids == tuple(i for i in tree.leaf_ids if i in wanted)
    assert all(len(small.children(i)) != 1 for i in range(1, len(small)))
    for node_id in small.ids:
        above = {tree.ids[i] for i in tree.ancestors_or_self(tree.index(node_id))}
        kept = {small.ids[i] for i in small.ancestors_or_self(small.index(node_id))}
        assert kept == above & set(small.ids)


def test_cut_top_starts_at_the_deepest_common_ancestor() -> None:
    chain = Hierarchy.from_nodes(random_nodes([-1, 0, 1, 2, 2]), name="tree")
    assert chain.cut_top().ids == ("n2", "n3", "n4")
    assert animals().cut_top() is not None
    assert animals().cut_top().ids == animals().ids
    lone = Hierarchy.from_nodes(random_nodes([-1, 0, 1]), name="tree")
    assert lone.cut_top().ids == ("n1", "n2")
    assert Hierarchy.from_nodes(random_nodes([-1]), name="dot").cut_top().ids == ("n0",)


# ---- levels --------------------------------------------------------------------------------------


def test_ancestor_at_depth() -> None:
    tree = animals()
    assert names_of(tree, tree.ancestor_at_depth(2)) == ["car", "bus", "dog", "dog", "cat"]
    assert names_of(tree, tree.ancestor_at_depth(0)) == ["entity"] * 5
    assert names_of(tree, tree.ancestor_at_depth(1, tree.index("husky"))) == ["animal"]
    assert tree.ancestor_at_depth(9).tolist() == tree.leaf_nodes.tolist()
    with pytest.raises(UsageError):
        tree.ancestor_at_depth(-1)


def test_cut_at_a_named_rank_falls_through_to_finer_ranks_and_leaves() -> None:
    tree = Hierarchy.from_nodes(
        animals().to_nodes(),
        name="ranked",
        ranks={"kingdom": ["animal"], "species": ["dog", "car"], "breed": ["poodle", "husky"]},
    )
    assert names_of(tree, tree.cut("kingdom")) == ["car", "bus", "animal", "animal", "animal"]
    assert names_of(tree, tree.cut("species")) == ["car", "bus", "dog", "dog", "cat"]
    assert names_of(tree, tree.cut("breed")) == ["car", "bus", "poodle", "husky", "cat"]
    with pytest.raises(UnknownNodeError, match="kingdom, species, breed"):
        tree.cut("genus")
    with pytest.raises(UnknownNodeError, match="ranks name unknown nodes"):
        Hierarchy.from_nodes(animals().to_nodes(), name="x", ranks={"kingdom": ["plant"]})


@given(trees(), st.integers(0, 8))
def test_a_cut_meets_every_path_once(tree: Hierarchy, depth: int) -> None:
    cut = set(tree.cut(depth).tolist())
    for leaf in tree.leaf_nodes:
        assert len(cut & set(tree.ancestors_or_self(int(leaf)))) == 1


# ---- hidden spacers ------------------------------------------------------------------------------


def test_hidden_nodes_are_replaced_by_their_visible_children() -> None:
    nodes = [
        Node(id="a"),
        Node(id="s", parent_id="a", hidden=True),
        Node(id="t", parent_id="s", hidden=True),
        Node(id="b", parent_id="t"),
        Node(id="c", parent_id="s"),
        Node(id="d", parent_id="a"),
    ]
    tree = Hierarchy.from_nodes(nodes, name="spaced")
    assert names_of(tree, tree.visible_children(0)) == ["b", "c", "d"]
    with pytest.raises(HierarchyError, match="hides its root or a leaf"):
        Hierarchy.from_nodes([Node(id="a", hidden=True)], name="x")


# ---- JSON ----------------------------------------------------------------------------------------


def full_tree() -> Hierarchy:
    return Hierarchy.from_nodes(
        [
            Node(id="tier", name="Tier", gloss="ein Lebewesen", synset="animal.n.01"),
            Node(id="gap", parent_id="tier", hidden=True),
            Node(id="löwe", parent_id="gap", name="Löwe", prompt="lion", aliases=("Leu", "König")),
            Node(id="n02121808", parent_id="tier", name="house cat"),
        ],
        name="Tiere",
        ranks={"Art": ["löwe", "n02121808"]},
        dropped_edges=[("löwe", "n02121808")],
        provenance={"source": "by hand", "licence": "CC0"},
    )


def published_schema() -> dict[str, object]:
    text = files("robustzs.schemas").joinpath("hierarchy.schema.json").read_text(encoding="utf-8")
    return json.loads(text)


@pytest.mark.parametrize("tree", [animals(), full_tree()], ids=lambda tree: tree.name)
def test_json_round_trip_and_schema(tree: Hierarchy) -> None:
    text = tree.to_json()
    again = Hierarchy.from_json(text)
    assert again == tree
    assert again.to_json() == text
    jsonschema.Draft202012Validator(published_schema()).validate(json.loads(text))
    assert len(text.splitlines()) > len(tree)  # a node per line, for readable differences


@given(trees(max_nodes=12))
def test_json_round_trip_of_any_tree(tree: Hierarchy) -> None:
    assert Hierarchy.from_json(tree.to_json().encode()).ids == tree.ids


def test_digest_is_pinned_and_depends_on_everything() -> None:
    """A change of this digest breaks every calibration that users hold."""
    pinned = "2569b28a055ca3af38f9ad2a081722706d97541463fa599c66df568662e42f16"
    assert animals().digest == pinned
    tree = full_tree()
    fields = json.loads(tree.to_json())
    del fields["digest"]
    digests = {tree.digest}
    changes = [
        {"name": "Andere"},
        {"ranks": []},
        {"dropped_edges": []},
        {"provenance": {}},
        {"nodes": [fields["nodes"][0] | {"gloss": "a living thing"}, *fields["nodes"][1:]]},
        {"nodes": [fields["nodes"][0], *fields["nodes"][3:], *fields["nodes"][1:3]]},
    ]
    for change in changes:
        digests.add(Hierarchy.from_json(json.dumps(fields | change)).digest)
    assert len(digests) == len(changes) + 1


def test_documents_may_be_written_by_hand_in_any_order() -> None:
    document = {
        "format": "robustzs-hierarchy",
        "schema_version": 1,
        "name": "t",
        "nodes": [{"id": "b", "parent": "a"}, {"id": "a"}, {"id": "c", "parent": "a"}],
    }
    assert Hierarchy.from_json(json.dumps(document)).ids == ("a", "b", "c")


def test_edited_documents_are_refused() -> None:
    text = animals().to_json().replace('"husky"', '"beagle"')
    with pytest.raises(HierarchyDigestError, match="remove the digest"):
        Hierarchy.from_json(text)


BROKEN_DOCUMENTS = {
    "not JSON": ("{", "not readable as JSON"),
    "deep": ("[" * 100_000, "not readable as JSON"),
    "not UTF-8": (b"\xff\xfe\xfa", "not readable as JSON"),
    "list": ("[]", "document: "),
    "newer": ('{"schema_version": 2, "magic": true}', "newer than 1"),
    "unknown field": (animals().to_json().replace('"name"', '"nome"', 1), "nome"),
    "no nodes": (
        '{"format":"robustzs-hierarchy","schema_version":1,"name":"t","nodes":[]}',
        "nodes: ",
    ),
    "duplicate key": (
        '{"format":"robustzs-hierarchy","schema_version":1,"name":"t","name":"u",'
        '"nodes":[{"id":"a"}]}',
        r"given twice in one object: \['name'\]",
    ),
    "ranks": (
        '{"format":"robustzs-hierarchy","schema_version":1,"name":"t","nodes":[{"id":"a"}],'
        '"ranks":[{"name":"r","nodes":[]},{"name":"r","nodes":[]}]}',
        "not distinct",
    ),
    "cycle": (
        '{"format":"robustzs-hierarchy","schema_version":1,"name":"t",'
        '"nodes":[{"id":"a","parent":"b"},{"id":"b","parent":"a"}]}',
        r"its own ancestor: 'a' -> 'b' -> 'a'",
    ),
}


@pytest.mark.parametrize(("text", "message"), BROKEN_DOCUMENTS.values(), ids=BROKEN_DOCUMENTS)
def test_broken_documents(text: str | bytes, message: str) -> None:
    with pytest.raises(HierarchyError, match=message):
        Hierarchy.from_json(text, source="tree.json")


def test_documents_have_a_size_limit() -> None:
    with pytest.raises(HierarchyLimitError, match="at most 10"):
        Hierarchy.from_json(animals().to_json(), limits=HierarchyLimits(max_bytes=10))


# ---- building ------------------------------------------------------------------------------------


def test_child_order() -> None:
    nodes = [Node(id=i, parent_id=p) for i, p in [("z", "r"), ("r", None), ("a", "r"), ("m", "r")]]
    assert Hierarchy.from_nodes(nodes, name="t").leaf_ids == ("z", "a", "m")
    by_id = BuildOptions(order="id")
    assert Hierarchy.from_nodes(nodes, name="t", options=by_id).leaf_ids == ("a", "m", "z")


def test_every_problem_is_reported_at_once_with_its_place() -> None:
    nodes = [
        Node(id="r", where="t:1"),
        Node(id="s", where="t:2"),
        Node(id="a", parent_id="r", where="t:3"),
        Node(id="a", parent_id="r", where="t:4"),
        Node(id="b", parent_id="ghost", where="t:5"),
        Node(id="c", parent_id="r", where="t:6"),
        Node(id="c", parent_id="a", where="t:7"),
        Node(id="x", parent_id="y", where="t:8"),
        Node(id="y", parent_id="x", where="t:9"),
        Node(id="has space", parent_id="r", where="t:10"),
        Node(id="bell", parent_id="r", name="be\x07ll", where="t:11"),
        Node(id="self", parent_id="self", where="t:12"),
        Node(id="a", name="A", parent_id="c", where="t:13"),
        Node(id="a", name="B", parent_id="s", where="t:14"),
    ]
    with pytest.raises(HierarchyFormatError) as caught:
        Hierarchy.from_nodes(nodes, name="broken")
    problems = "\n".join(caught.value.problems)
    for expected in [
        "t:2: 2 roots: 'r', 's'",
        "t:4: 'a' is listed twice under 'r', first at t:3",
        "t:5: parent 'ghost' of 'b' is not a node",
        "t:8: a node is its own ancestor: 'x' -> 'y' -> 'x'",
        "t:10: id 'has space' contains white space",
        "t:11: name of 'bell' contains the control character U+0007",
        "t:12: a node is its own ancestor: 'self' -> 'self'",
        "t:14: 'a' has two names: 'A', 'B'",
    ]:
        assert expected in problems
    assert "one new node as the parent of all" in caught.value.hint
    assert str(caught.value).startswith("hierarchy 'broken': ")


def test_a_single_kind_of_problem_keeps_its_type_and_code() -> None:
    with pytest.raises(HierarchyError) as caught:
        Hierarchy.from_nodes(random_nodes([-1, -1]), name="t")
    assert caught.value.code == "hierarchy-multiple-roots"
    cyclic = [Node(id="a", parent_id="b"), Node(id="b", parent_id="a")]
    with pytest.raises(HierarchyError) as caught:
        Hierarchy.from_nodes(cyclic, name="t")
    assert caught.value.code == "hierarchy-cycle"


def test_virtual_root() -> None:
    nodes = [Node(id="a"), Node(id="b"), Node(id="c", parent_id="a")]
    rooted = Hierarchy.from_nodes(nodes, name="t", options=BuildOptions(virtual_root="top"))
    assert rooted.ids == ("top", "a", "c", "b")
    single = Hierarchy.from_nodes(nodes[::2], name="t", options=BuildOptions(virtual_root="top"))
    assert single.ids == ("a", "c")
    with pytest.raises(HierarchyFormatError, match="'c' is a node already"):
        Hierarchy.from_nodes(nodes, name="t", options=BuildOptions(virtual_root="c"))


def diamond() -> list[Node]:
    """d hangs under the root, and under b and c at equal depth."""
    edges = [("r", None), ("b", "r"), ("c", "r"), ("d", "r"), ("d", "c"), ("d", "b"), ("e", "c")]
    return [Node(id=i, parent_id=p, where=f"t:{k}") for k, (i, p) in enumerate(edges, 1)]


def test_multiple_parents() -> None:
    with pytest.raises(
        HierarchyFormatError, match=r"'d' has 3 parents: 'r' \(t:4\), 'c' \(t:5\), 'b'"
    ):
        Hierarchy.from_nodes(diamond(), name="t")
    longest = BuildOptions(on_multiple_parents="longest")
    tree = Hierarchy.from_nodes(diamond(), name="t", options=longest)
    assert tree.ids[tree.parent[tree.index("d")]] == "b"
    assert tree.dropped_edges == (("d", "c"), ("d", "r"))


def test_labels_decide_what_must_be_a_leaf() -> None:
    nodes = animals().to_nodes()
    all_leaves = BuildOptions(labels=animals().leaf_ids)
    assert Hierarchy.from_nodes(nodes, name="animals", options=all_leaves) == animals()
    with pytest.raises(LabelMismatchError) as caught:
        Hierarchy.from_nodes(
            nodes, name="t", options=BuildOptions(labels=["dog", "poodle", "husky", "mouse"])
        )
    assert caught.value.problems == (
        "the label 'dog' is an inner node, not a leaf",
        "the label 'mouse' is not in the tree",
        "the leaf 'car' is not a label",
        "the leaf 'bus' is not a label",
        "the leaf 'cat' is not a label",
        "the subtree of 'vehicle' holds no label",
    )


def test_other_leaf_answers_for_an_inner_label() -> None:
    options = BuildOptions(labels=[*animals().leaf_ids, "dog"], on_internal_label="other-leaf")
    tree = Hierarchy.from_nodes(animals().to_nodes(), name="t", options=options)
    other = tree.index("dog--other")
    assert tree.ids[tree.parent[other]] == "dog"
    assert (tree.names[other], tree.prompts[other]) == ("dog (other)", "dog")


def test_limits() -> None:
    chain = random_nodes([-1, *range(70)])
    with pytest.raises(HierarchyLimitError, match="'n70' has depth 70; at most 64"):
        Hierarchy.from_nodes(chain, name="t")
    tight = HierarchyLimits(max_nodes=3, max_aliases=1, max_text=8, max_gloss=4)
    with pytest.raises(HierarchyLimitError, match="more than 3 nodes"):
        Hierarchy.from_nodes(chain[:4], name="t", options=BuildOptions(limits=tight))
    verbose = Node(id="a", name="x" * 9, gloss="y" * 5, aliases=("b", "c"))
    with pytest.raises(HierarchyLimitError) as caught:
        Hierarchy.from_nodes([verbose], name="t", options=BuildOptions(limits=tight))
    assert len(caught.value.problems) == 3


def test_nothing_is_not_a_tree() -> None:
    with pytest.raises(HierarchyFormatError, match="no nodes"):
        Hierarchy.from_nodes([], name="t")


def test_a_report_stays_short_however_many_problems() -> None:
    nodes = [Node(id=f"n {i}") for i in range(5000)]
    with pytest.raises(HierarchyFormatError) as caught:
        Hierarchy.from_nodes(nodes, name="t")
    assert len(caught.value.problems) == 1000
    assert len(str(caught.value).splitlines()) == 22
