from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustzs.errors import (
    HierarchyLimitError,
    LabelMismatchError,
    UnknownLabelError,
    UsageError,
)
from robustzs.hierarchy.grow import (
    IMAGENET_TREE_PATH,
    build_imagenet_tree,
    flat_tree,
    grow_noun_tree,
    grow_wordnet_tree,
    imagenet_tree,
)
from robustzs.hierarchy.limits import HierarchyLimits
from robustzs.hierarchy.noun_graph import noun_graph
from robustzs.hierarchy.noun_index import NounIndex
from robustzs.hierarchy.tree import Hierarchy
from robustzs.labels.entries import imagenet_table
from robustzs.labels.label import Label
from robustzs.labels.label_set import LabelSet

INDEX = NounIndex.load()
WNIDS = tuple(imagenet_table())


def labels(*synsets: str) -> LabelSet:
    """Labels named after the senses they are pinned to; ``dog=dog.n.01`` names one itself."""
    pairs = [text.split("=") if "=" in text else (text.split(".")[0], text) for text in synsets]
    return LabelSet(tuple(Label(id=n, name=n, prompt=f"my {n}", synset=s) for n, s in pairs))


def outline(tree: Hierarchy) -> list[str]:
    return [f"{'. ' * tree.depth[i]}{tree.names[i]}" for i in range(len(tree))]


def path(tree: Hierarchy, node: int) -> list[str]:
    found = []
    while node >= 0:
        found.append(tree.names[node])
        node = int(tree.parent[node])
    return found[::-1]


class TestImageNet:
    def test_shape(self) -> None:
        tree = imagenet_tree()
        depth = tree.depth[tree.leaf_nodes]
        assert (tree.n_nodes, tree.n_leaves) == (1375, 1000)
        assert (depth.min(), depth.max()) == (4, 16)
        assert depth.mean() == pytest.approx(9.6, abs=0.05)
        assert set(tree.leaf_ids) == set(WNIDS)
        assert tree.names[0] == "entity"

    def test_leaves_read_as_in_the_label_table(self) -> None:
        tree = imagenet_tree()
        for label in imagenet_table().values():
            node = tree.index(label.id)
            assert tree.names[node] == label.name
            assert tree.prompts[node] == label.prompt
            assert tree.synsets[node] == INDEX.get(label.id).name
            assert tree.glosses[node] == INDEX.get(label.id).gloss

    def test_paths_are_what_people_expect(self) -> None:
        tree = imagenet_tree()
        chain = path(tree, tree.index("n02123045"))  # tabby cat
        for name in ("animal", "mammal", "carnivore", "feline"):
            assert name in chain

    @pytest.mark.parametrize("wnid", ["n06794110", "n06874185", "n09229709", "n07892512"])
    def test_nothing_is_an_abstraction(self, wnid: str) -> None:
        tree = imagenet_tree()
        chain = path(tree, tree.index(wnid))
        assert chain[1] == "physical entity"
        assert "abstraction" not in tree.names

    def test_only_the_root_may_have_one_child(self) -> None:
        counts = Counter(imagenet_tree().parent.tolist())
        assert [node for node, n in counts.items() if n == 1 and node > 0] == []

    def test_the_shipped_file_is_what_growing_gives(self) -> None:
        tree = build_imagenet_tree(INDEX)
        assert IMAGENET_TREE_PATH.read_text(encoding="utf-8") == tree.to_json()
        assert imagenet_tree() == tree

    def test_the_notice_of_wordnet_travels_along(self) -> None:
        assert "Princeton University" in dict(imagenet_tree().provenance)["licence"]

    @pytest.mark.parametrize("seed", range(5))
    def test_hash_seeds_do_not_matter(self, seed: int) -> None:
        code = (
            "from robustzs.hierarchy.noun_index import NounIndex\n"
            "from robustzs.hierarchy.grow import build_imagenet_tree\n"
            "print(build_imagenet_tree(NounIndex.load()).digest)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == imagenet_tree().digest


class TestGrow:
    def test_single_children_give_way_and_the_root_stays(self) -> None:
        tree = grow_wordnet_tree(labels("dog.n.01", "cat.n.01", "oak.n.02"), INDEX)
        assert outline(tree) == [
            "entity",
            ". organism",
            ". . carnivore",
            ". . . dog",
            ". . . cat",
            ". . oak",
        ]
        assert tree.ids[1] == "n00004475"
        assert tree.synsets[1] == "organism.n.01"
        assert tree.prompts[tree.index("dog")] == "my dog"

    def test_longest_paths_are_kept_and_the_rest_is_on_record(self) -> None:
        pets = labels("dog.n.01", "cat.n.01", "cow.n.01", "domestic_animal.n.01")
        tree = grow_wordnet_tree(pets, INDEX)
        assert "carnivore" in path(tree, tree.index("dog"))
        assert ("dog", INDEX.get("domestic_animal.n.01").wnid) in tree.dropped_edges

    def test_one_label(self) -> None:
        assert outline(grow_wordnet_tree(labels("dog.n.01"), INDEX)) == ["entity", ". dog"]

    def test_the_order_of_labels_does_not_matter(self) -> None:
        senses = ["dog.n.01", "cat.n.01", "car.n.01", "oak.n.02", "wolf.n.01"]
        first = grow_wordnet_tree(labels(*senses), INDEX)
        assert grow_wordnet_tree(labels(*senses[::-1]), INDEX).digest == first.digest

    def test_a_label_above_another_gets_a_leaf_of_its_own(self) -> None:
        tree = grow_wordnet_tree(labels("dog.n.01", "lab=labrador_retriever.n.01"), INDEX)
        assert outline(tree) == ["entity", ". dog", ". . dog (other)", ". . lab"]
        assert tree.ids == ("n00001740", "n02084071", "dog", "lab")
        assert tree.prompts[2] == "my dog"

    def test_such_a_leaf_keeps_its_id_even_when_it_is_the_wnid(self) -> None:
        classes = LabelSet(
            tuple(Label(w, w, w, synset=w) for w in ("n02084071", "n02099712"))  # dog, labrador
        )
        tree = grow_wordnet_tree(classes, INDEX)
        assert tree.ids == ("n00001740", "n02084071--any", "n02084071", "n02099712")
        assert set(tree.leaf_ids) == set(classes.ids)

    def test_labels_of_one_sense_share_a_node(self) -> None:
        tree = grow_wordnet_tree(labels("car=car.n.01", "auto=car.n.01", "dog.n.01"), INDEX)
        node = tree.index(INDEX.get("car.n.01").wnid)
        assert [tree.ids[i] for i in tree.children(node)] == ["car", "auto"]
        assert tree.names[tree.index("car")] == "car"

    def test_labels_without_a_sense_hang_under_the_root(self) -> None:
        both = LabelSet.from_names(["smartphone", "dog"])
        tree = grow_wordnet_tree(both, INDEX, senses=[None, "dog.n.01"])
        assert outline(tree) == ["entity", ". dog", ". smartphone"]
        assert tree.synsets[2] is None

    def test_cut_top_starts_where_labels_part(self) -> None:
        tree = grow_wordnet_tree(labels("dog.n.01", "cat.n.01"), INDEX, cut_top=True)
        assert outline(tree) == ["carnivore", ". dog", ". cat"]

    def test_root(self) -> None:
        tree = grow_wordnet_tree(labels("dog.n.01", "hen.n.02"), INDEX, root="animal.n.01")
        assert tree.names[0] == "animal"
        with pytest.raises(LabelMismatchError, match=r"'oak' \(oak\.n\.02\)"):
            grow_wordnet_tree(labels("dog.n.01", "oak.n.02"), INDEX, root="animal.n.01")

    @pytest.mark.parametrize("max_depth", [1, 2, 5, 9, 16])
    def test_max_depth(self, max_depth: int) -> None:
        full = imagenet_tree()
        tree = grow_wordnet_tree(LabelSet.imagenet1k(), INDEX, max_depth=max_depth)
        assert tree.depth.max() == max_depth
        assert set(tree.leaf_ids) == set(full.leaf_ids)
        shallow = [i for i in range(len(full)) if full.depth[i] < max_depth]
        assert {full.ids[i] for i in shallow} <= set(tree.ids)
        for i in shallow:
            if i:
                parent = tree.parent[tree.index(full.ids[i])]
                assert tree.ids[parent] == full.ids[full.parent[i]]

    @pytest.mark.parametrize("max_depth", [0, -1])
    def test_max_depth_is_checked(self, max_depth: int) -> None:
        with pytest.raises(UsageError, match=str(max_depth)):
            grow_wordnet_tree(labels("dog.n.01"), INDEX, max_depth=max_depth)

    def test_as_many_senses_as_labels(self) -> None:
        with pytest.raises(UsageError, match="1 senses for 2 labels"):
            grow_wordnet_tree(labels("dog.n.01", "cat.n.01"), INDEX, senses=[None])

    def test_unknown_senses_are_named(self) -> None:
        with pytest.raises(UnknownLabelError, match=r"dog\.n\.88"):
            grow_wordnet_tree(labels("dog.n.88"), INDEX)

    def test_limits_hold(self) -> None:
        with pytest.raises(HierarchyLimitError):
            grow_wordnet_tree(LabelSet.imagenet1k(), INDEX, limits=HierarchyLimits(max_nodes=1374))

    def test_individuals_hang_under_their_kind(self) -> None:
        tree = grow_wordnet_tree(labels("ganges.n.01", "rhine.n.02", "dog.n.01"), INDEX)
        assert path(tree, tree.index("ganges"))[-2:] == ["river", "ganges"]

    @settings(deadline=None, max_examples=40)
    @given(rows=st.sets(st.integers(0, len(INDEX) - 1), min_size=1, max_size=30))
    def test_any_nouns_make_a_tree(self, rows: set[int]) -> None:
        chosen = LabelSet(
            tuple(Label(f"l{r}", f"l{r}", f"l{r}", synset=INDEX.wnid(r)) for r in sorted(rows))
        )
        tree = grow_wordnet_tree(chosen, INDEX)
        assert sorted(tree.leaf_ids) == sorted(chosen.ids)
        counts = Counter(tree.parent.tolist())
        assert all(n > 1 for node, n in counts.items() if node > 0)
        graph = noun_graph(INDEX)
        for leaf in tree.leaf_nodes.tolist():
            row = INDEX.row(tree.synsets[leaf] or "")
            above = graph.above([row])
            node = leaf
            while (node := int(tree.parent[node])) >= 0:
                assert above[INDEX.row(tree.synsets[node] or "")]


class TestNouns:
    tree = grow_noun_tree(INDEX)

    def test_shape(self) -> None:
        # 32,577 synsets below physical entity that are not persons, and 15 from the overrides.
        assert (self.tree.n_nodes, self.tree.n_leaves) == (32_592, 25_193)
        assert self.tree.ids[0] == INDEX.get("physical_entity.n.01").wnid

    def test_every_noun_once_with_its_own_id(self) -> None:
        assert all(node_id in INDEX for node_id in self.tree.ids)
        assert len(set(self.tree.synsets)) == self.tree.n_nodes

    @pytest.mark.parametrize("name", ["dog.n.01", "traffic_light.n.01", "ice_cream.n.01"])
    def test_holds_things_to_see(self, name: str) -> None:
        assert INDEX.get(name).wnid in self.tree.ids

    @pytest.mark.parametrize("name", ["person.n.01", "doctor.n.01", "love.n.01", "ganges.n.01"])
    def test_holds_no_persons_ideas_or_individuals(self, name: str) -> None:
        assert INDEX.get(name).wnid not in self.tree.ids

    def test_prompts_tell_nodes_apart(self) -> None:
        crane = self.tree.index(INDEX.get("crane.n.05").wnid)
        assert self.tree.names[crane] == "crane"
        assert self.tree.prompts[crane] == "crane, wading bird"
        counts = Counter(prompt.casefold() for prompt in self.tree.prompts)
        assert sum(n for n in counts.values() if n > 1) <= 2

    def test_edges_are_wordnets(self) -> None:
        graph = noun_graph(INDEX, instances=False)
        edges = set(zip(graph.child.tolist(), graph.parent.tolist(), strict=True))
        rows = INDEX.rows(self.tree.ids)
        for node in range(1, self.tree.n_nodes):
            assert (int(rows[node]), int(rows[self.tree.parent[node]])) in edges


def test_information_falls_towards_the_root() -> None:
    graph = noun_graph(INDEX)
    assert graph.information[INDEX.row("entity.n.01")] == 0
    assert graph.information.max() == pytest.approx(np.log(len(INDEX)))
    has_parent = graph.tree_parent >= 0
    above = graph.information[graph.tree_parent[has_parent]]
    assert (above < graph.information[has_parent]).all()


def test_flat() -> None:
    tree = flat_tree(LabelSet.from_names(["root", "dog"]))
    assert outline(tree) == ["anything", ". root", ". dog"]
    assert tree.leaf_ids == ("root", "dog")
