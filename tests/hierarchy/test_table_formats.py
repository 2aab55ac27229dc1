"""Edge tables, wide tables, and formats that others published."""

from __future__ import annotations

import json
import os

import pytest

from robustzs.errors import (
    CycleError,
    HierarchyFormatError,
    LabelMismatchError,
)
from robustzs.hierarchy.formats import read_hierarchy
from tests.hierarchy.files import parents, problems_of

# ---- edge tables ---------------------------------------------------------------------------------


def test_edge_table_columns(write) -> None:
    text = (
        "Parent,child,name,aliases,synset,prompt,gloss\n"
        'animal,hund,"Hund, Haushund",Köter | Wauwau,dog.n.01,dog,"bellt, beißt"\n'
        "animal,Große Katze,,,,,\n"
        ",animal,,,,,\n"
        ",,,,,,\n"
    )
    tree = read_hierarchy(write("t.csv", text))
    assert tree.ids == ("animal", "hund", "grosse-katze")
    dog = tree.index("hund")
    assert tree.names[dog] == "Hund, Haushund"
    assert tree.aliases[dog] == ("Köter", "Wauwau")
    assert (tree.prompts[dog], tree.synsets[dog]) == ("dog", "dog.n.01")
    assert tree.glosses[dog] == "bellt, beißt"
    assert tree.names[2] == "Große Katze"


def test_every_problem_of_an_edge_table(write) -> None:
    text = "child,parent\nb,a\nb,a\nc\n,a\nx,y\ny,x\nb,d\n"
    found = problems_of(write("t.csv", text))
    for expected in [
        "t.csv:4: 1 cells under 2 columns",
        "t.csv:5: a row without a child",
        "t.csv:3: 'b' is listed twice under 'a', first at t.csv:2",
        "t.csv:6: a node is its own ancestor: 'x' -> 'y' -> 'x'",
        "2 roots: 'a', 'd'",
        "t.csv:8: 'b' has 2 parents: 'a' (t.csv:2), 'd' (t.csv:8)",
    ]:
        assert expected in found


@pytest.mark.parametrize("header", ["child,parent,colour", "child,parent,child", "child", ""])
def test_edge_table_headers(header: str, write) -> None:
    with pytest.raises(HierarchyFormatError, match=r"t.csv:1: the columns are"):
        read_hierarchy(write("t.csv", header + "\nb,a\n"), "edges")


def test_broken_csv(write) -> None:
    with pytest.raises(HierarchyFormatError, match=r"t.csv:\d+: not CSV"):
        read_hierarchy(write("t.csv", 'child,parent\n"b,a\nc,a\n'))
    with pytest.raises(HierarchyFormatError, match="not CSV: field larger"):
        read_hierarchy(write("t.csv", "child,parent\n" + "b" * 200_000 + ",a\n"))


def test_cycles_alone_are_a_cycle_error(write) -> None:
    with pytest.raises(CycleError, match=r"t.csv:2: a node is its own ancestor"):
        read_hierarchy(write("t.csv", "child,parent\na,b\nb,c\nc,a\n"))


def test_multiple_parents_policy(write) -> None:
    path = write("t.csv", "child,parent\na,r\nb,a\nd,r\nd,b\n")
    with pytest.raises(HierarchyFormatError, match="longest"):
        read_hierarchy(path)
    tree = read_hierarchy(path, on_multiple_parents="longest")
    assert parents(tree)["d"] == "b"
    assert tree.dropped_edges == (("d", "r"),)


def test_labels(write) -> None:
    path = write("t.csv", "child,parent\ndog,animal\npoodle,dog\ncat,animal\n")
    assert read_hierarchy(path, labels=["cat", "poodle"]).n_leaves == 2
    with pytest.raises(LabelMismatchError, match="'dog' is an inner node"):
        read_hierarchy(path, labels=["cat", "poodle", "dog"])
    tree = read_hierarchy(path, labels=["cat", "poodle", "dog"], on_internal_label="other-leaf")
    assert tree.leaf_ids == ("poodle", "dog--other", "cat")
    own = write("t.json", tree.to_json())
    assert read_hierarchy(own, labels=tree.leaf_ids) == tree
    with pytest.raises(LabelMismatchError, match="'poodle' is not a label"):
        read_hierarchy(own, labels=["cat", "dog--other"])


# ---- wide tables ---------------------------------------------------------------------------------

TAXA = """kingdom,class,order,family,species
Animalia,Mammalia,Carnivora,Felidae,Felis catus
Animalia,Mammalia,Carnivora,Felidae,Panthera leo
Animalia,Mammalia,,,Homo sapiens
Plantae,,,,Rosa canina
"""


def test_wide_table_becomes_ranks_under_an_implied_root(write) -> None:
    tree = read_hierarchy(write("taxa.csv", TAXA))
    assert tree.ids[0] == "root"
    assert tree.leaf_ids == ("felis-catus", "panthera-leo", "homo-sapiens", "rosa-canina")
    assert [rank.name for rank in tree.ranks] == ["kingdom", "class", "order", "family", "species"]
    assert [tree.names[i] for i in tree.cut("family")] == [
        "Felidae",
        "Felidae",
        "Homo sapiens",
        "Rosa canina",
    ]
    assert [tree.names[i] for i in tree.cut("kingdom")] == ["Animalia"] * 3 + ["Plantae"]


def test_every_problem_of_a_wide_table(write) -> None:
    text = (
        "class,order,species\n"
        "Aves,Aves,robin\n"
        "Aves,Passeriformes,wren\n"
        "Aves,Passeriformes,wren\n"
        "Mammalia,Passeriformes,bat\n"
        "Aves,Passeriformes,,wing\n"
        "Aves,,\n"
    )
    found = problems_of(write("t.csv", text))
    for expected in [
        "t.csv:2: 'Aves' has the rank 'order' here, 'class' at t.csv:2",
        "t.csv:4: the leaf 'wren' is there already, at t.csv:3",
        "t.csv:5: 'passeriformes' has 2 parents",
        "t.csv:6: 4 cells under 3 columns",
        "t.csv:2: the label 'aves' is an inner node, not a leaf",
    ]:
        assert expected in found


def test_wide_header(write) -> None:
    for text in ("a,a\nx,y", "a,,b\nx,y,z", "", "\n\n"):
        with pytest.raises(HierarchyFormatError, match="name every column"):
            read_hierarchy(write("t.csv", text), "wide")


# ---- published formats ---------------------------------------------------------------------------


def test_breeds_folder(write) -> None:
    edges = ["n1 dummy1", "dummy1 n2", "n2 n3", "n2 dummy2", "dummy2 n4", "dummy2 n5", "n1 dummy3"]
    write("b/class_hierarchy.txt", "\n".join([*edges, "dummy3 n6", "dummy3 n7"]))
    names = {"n1": "entity", "dummy1": "garment", "n2": "garment", "n3": "skirt"}
    names |= {"dummy2": "dummy2", "n4": "boot", "n5": "clog", "dummy3": "furniture", "n6": "bed"}
    write("b/node_names.txt", "".join(f"{k}\t{v}\n" for k, v in (names | {"n7": "sofa"}).items()))
    classes = [[0, "n3", "miniskirt, mini"], [1, "n4", "boot"], [2, "n5", "clog"]]
    classes += [[3, "n6", "bed"], [4, "n7", "sofa, couch"], [5, "n9", "not in the tree"]]
    path = write("b/dataset_class_info.json", json.dumps(classes)).parent
    tree = read_hierarchy(path)
    assert tree.name == "b"
    assert tree.leaf_ids == ("n3", "n4", "n5", "n6", "n7")
    skirt = tree.index("n3")
    assert (tree.names[skirt], tree.aliases[skirt]) == ("miniskirt", ("mini",))
    hidden = {tree.ids[i] for i in range(len(tree)) if tree.hidden[i]}
    assert hidden == {"dummy1", "dummy2"}  # a single child; no name. dummy3 is a group
    assert tree.depth[skirt] == 3


def test_every_problem_of_a_breeds_folder(write) -> None:
    write("b/class_hierarchy.txt", "n1 n2\nn1 n3 n4\n\nn1 n5\n")
    write("b/node_names.txt", "n1\tentity\nn1\tagain\nn2 no tab\n")
    path = write("b/dataset_class_info.json", '[[0, "n2", "x"],\n[1, "n2", "y"],\n7]').parent
    with pytest.raises(HierarchyFormatError) as caught:
        read_hierarchy(path)
    found = [problem.replace(str(path) + os.sep, "") for problem in caught.value.problems]
    assert found == [
        "class_hierarchy.txt:2: 'parent child' expected, found 3 words",
        "node_names.txt:2: 'id<tab>name' expected, each id once",
        "node_names.txt:3: 'id<tab>name' expected, each id once",
        "dataset_class_info.json:2: [index, wnid, name] expected, each wnid once",
        "dataset_class_info.json:3: [index, wnid, name] expected, each wnid once",
        "class_hierarchy.txt:4: the leaf 'n5' is not in dataset_class_info.json",
    ]


def test_is_a_list_is_a_graph(write) -> None:
    text = "n00000001 n00000002\nn00000002 n00000003\nn00000001 n00000003\nn00000001 n00000002\n"
    tree = read_hierarchy(write("wordnet.is_a.txt", text))
    assert tree.ids == ("n00000001", "n00000002", "n00000003")
    assert tree.dropped_edges == (("n00000003", "n00000001"),)
    with pytest.raises(HierarchyFormatError, match="has 2 parents"):
        read_hierarchy(write("wordnet.is_a.txt", text), on_multiple_parents="error")


def test_chils_label_sets(write) -> None:
    """A superclass is often its own sub-label, and generated lists repeat themselves."""
    text = """{
  "dog": ["dog", "poodle", "poodle", "red fox"],
  "fox": ["fox", "red fox", "dog"]
}"""
    tree = read_hierarchy(write("label_set.json", text))
    assert parents(tree) == {
        "dog": "root",
        "fox": "root",
        "dog-dog": "dog",
        "poodle": "dog",
        "dog-red-fox": "dog",
        "fox-fox": "fox",
        "fox-red-fox": "fox",
        "fox-dog": "fox",
    }
    names = [label.name for label in tree.labels]
    assert names == ["dog", "poodle", "red fox", "fox", "red fox", "dog"]


def test_chils_problems(write) -> None:
    path = write("t.json", '{"a": ["b"],\n"c": [],\n"d": "e",\n"f": [["g"]],\n"a": ["h"]}')
    found = problems_of(path, format="chils")
    for line, key in ((2, "c"), (3, "d"), (4, "f")):
        assert f"t.json:{line}: '{key}' needs a list of sub-labels" in found
    assert "t.json:5: the key 'a' is there 2 times" in found
    with pytest.raises(HierarchyFormatError, match="a mapping of superclasses"):
        read_hierarchy(write("t.json", "[]"), "chils")
