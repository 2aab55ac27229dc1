from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from robustzs.errors import (
    CycleError,
    HierarchyError,
    HierarchyFormatError,
    HierarchyLimitError,
    LabelMismatchError,
    MultipleRootsError,
    UsageError,
)
from robustzs.hierarchy.build import Node
from robustzs.hierarchy.formats import FORMATS, read_hierarchy, sniff_format
from robustzs.hierarchy.limits import HierarchyLimits
from robustzs.hierarchy.tree import Hierarchy
from robustzs.labels import LabelSet
from tests.hierarchy.trees import animals, trees

ANIMALS = {
    "vehicle": "entity",
    "car": "vehicle",
    "bus": "vehicle",
    "animal": "entity",
    "dog": "animal",
    "poodle": "dog",
    "husky": "dog",
    "cat": "animal",
}


@pytest.fixture
def write(tmp_path: Path):
    def write_file(name: str, text: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
        return path

    return write_file


def parents(tree: Hierarchy) -> dict[str, str]:
    return {tree.ids[i]: tree.ids[tree.parent[i]] for i in range(1, len(tree))}


def problems_of(path: Path, **options: object) -> str:
    with pytest.raises(HierarchyError) as caught:
        read_hierarchy(path, **options)
    return "\n".join(caught.value.problems).replace(str(path), path.name)


# ---- one tree, every format ----------------------------------------------------------------------

SAME_TREE = {
    "t.yaml": """
        entity:
          vehicle: [car, bus]
          animal:
            dog:
              - poodle
              - husky
            cat: []
        """,
    "t.json": '{"entity":{"vehicle":["car","bus"],"animal":{"dog":["poodle","husky"],"cat":null}}}',
    "t.csv": "child,parent\n" + "\n".join(f"{c},{p}" for c, p in ANIMALS.items()),
    "wide/t.csv": "domain,kind,species,breed\nentity,vehicle,car,\nentity,vehicle,bus,\n"
    "entity,animal,dog,poodle\nentity,animal,dog,husky\nentity,animal,cat,\n",
    "own/t.json": animals().to_json(),
    "t/class_hierarchy.txt": "\n".join(f"{p} {c}" for c, p in ANIMALS.items()),
}


@pytest.mark.parametrize("name", SAME_TREE)
def test_one_tree_in_every_format(name: str, write) -> None:
    path = write(name, SAME_TREE[name])
    if path.name == "class_hierarchy.txt":
        path = path.parent
        write("t/node_names.txt", "".join(f"{i}\t{i}\n" for i in ["entity", *ANIMALS]))
    tree = read_hierarchy(path)
    assert tree.ids == animals().ids
    assert parents(tree) == ANIMALS
    assert tree.leaf_ids == ("car", "bus", "poodle", "husky", "cat")


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=trees(max_nodes=25))
def test_any_tree_survives_yaml_and_edges(tree: Hierarchy, tmp_path: Path) -> None:
    def branch(node: int) -> dict[str, object]:
        return {tree.ids[child]: branch(int(child)) for child in tree.children(node)}

    nested = tmp_path / "tree.json"
    nested.write_text(json.dumps({tree.ids[0]: branch(0)}))
    assert parents(read_hierarchy(nested, "nested")) == parents(tree)
    edges = tmp_path / "tree.csv"
    with edges.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["child", "parent"])
        rows.writerows(
            [tree.ids[0], ""] if p < 0 else [tree.ids[i], tree.ids[p]]
            for i, p in enumerate(tree.parent.tolist())
        )
    assert read_hierarchy(edges).ids == tree.ids


# ---- recognising ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.yaml", "a: [b]", "nested"),
        ("a.YML", "a: [b]", "nested"),
        ("a.json", '{"a": {"b": []}}', "nested"),
        ("a.json", '{"a": ["b", "c"]}', "nested"),
        ("a.json", '{"a": ["b"], "_": {"name": "t"}}', "nested"),
        ("a.json", '["a"]', "nested"),
        ("a.json", '{"a": ["b"], "c": ["d"]}', "chils"),
        ("a.json", animals().to_json(), "json"),
        ("a.csv", "Parent,Child\n", "edges"),
        ("a.tsv", "child\tparent\n", "edges"),
        ("a.csv", "order,family\n", "wide"),
        ("wordnet.is_a.txt", "n00001740 n00001930\n", "is-a"),
    ],
)
def test_sniffing(name: str, text: str, expected: str, write) -> None:
    assert sniff_format(write(name, text)) == expected


def test_unknown_formats_name_the_known_ones(write, tmp_path: Path) -> None:
    with pytest.raises(HierarchyFormatError, match=", ".join(FORMATS)):
        read_hierarchy(write("a.txt", "hello world"))
    with pytest.raises(HierarchyFormatError, match="no known hierarchy format"):
        read_hierarchy(tmp_path)
    with pytest.raises(UsageError, match=", ".join(FORMATS)):
        read_hierarchy(write("a.yaml", "a: [b]"), "xml")


# ---- files ---------------------------------------------------------------------------------------


def test_byte_order_mark_and_windows_lines(write) -> None:
    path = write("t.csv", b"\xef\xbb\xbfchild,parent\r\nb,a\r\nc,a\r\n")
    assert read_hierarchy(path).ids == ("a", "b", "c")
    assert read_hierarchy(write("t.yaml", b"\xef\xbb\xbfa:\r\n  - b\r\n")).ids == ("a", "b")


def test_files_that_cannot_be_read(write, tmp_path: Path) -> None:
    with pytest.raises(HierarchyFormatError, match="No such file"):
        read_hierarchy(tmp_path / "nowhere.yaml")
    with pytest.raises(HierarchyFormatError, match=r"latin.yaml:2: byte 0xE9 is not UTF-8"):
        read_hierarchy(write("latin.yaml", b"a:\n  - caf\xe9\n"))
    with pytest.raises(HierarchyFormatError, match=r"nul.csv:2: NUL"):
        read_hierarchy(write("nul.csv", "child,parent\nb\0,a\n"))
    with pytest.raises(HierarchyLimitError, match="more than 10 bytes"):
        read_hierarchy(write("big.yaml", "a: [b, c, d]"), limits=HierarchyLimits(max_bytes=10))
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(HierarchyFormatError, match="not a regular file"):
        read_hierarchy(tmp_path / "pipe.yaml")


# ---- ids -----------------------------------------------------------------------------------------


def test_leaves_get_the_ids_of_a_label_set_of_the_same_names(write) -> None:
    names = ["great white shark", "n02084071", "C++", "C#", "Großer Tümmler", "hot dog"]
    path = write("t.json", json.dumps({"everything else": names}))
    tree = read_hierarchy(path)
    assert set(tree.leaf_ids) == {label.id for label in LabelSet.from_names(names)}
    assert tree.ids[0] == "everything-else"
    assert tree.names[0] == "everything else"
    assert tree.labels.labels[0].prompt == "great white shark"


def test_names_that_only_differ_in_punctuation_stay_apart(write) -> None:
    tree = read_hierarchy(write("t.json", '{"hot dog": ["hot-dog", "Hot Dog!", "cat"]}'))
    assert len(set(tree.ids)) == 4
    assert tree.names == ("hot dog", "hot-dog", "Hot Dog!", "cat")


# ---- nested --------------------------------------------------------------------------------------


def test_attributes(write) -> None:
    text = """
        _: {name: Things}
        thing:
          _: {id: n00002452, synset: thing.n.12, gloss: "a separate entity"}
          spacer:
            _: {hidden: true}
            crane (bird): {_: {id: crane-bird, prompt: crane bird, aliases: [heron, stork]}}
          crane: {_: {id: crane-machine, synset: crane.n.04, aliases: derrick}}
          Nile:
        """
    tree = read_hierarchy(write("t.yaml", text))
    assert tree.name == "Things"
    assert tree.ids == ("n00002452", "spacer", "crane-bird", "crane-machine", "nile")
    bird, machine = tree.index("crane-bird"), tree.index("crane-machine")
    assert (tree.names[bird], tree.prompts[bird]) == ("crane (bird)", "crane bird")
    assert (tree.aliases[bird], tree.aliases[machine]) == (("heron", "stork"), ("derrick",))
    assert tree.synsets[machine] == "crane.n.04"
    assert tree.glosses[0] == "a separate entity"
    assert tree.hidden.tolist() == [False, True, False, False, False]


def test_plain_text_is_never_converted(write) -> None:
    tree = read_hierarchy(write("t.yaml", "yes:\n  - no\n  - 1e3\n  - 2024-01-01\n  - 0x1F\n"))
    assert tree.names == ("yes", "no", "1e3", "2024-01-01", "0x1F")
    assert read_hierarchy(write("t.json", '{"a": [true, 12]}')).names == ("a", "true", "12")


def test_every_problem_of_a_nested_file(write) -> None:
    text = """animal:
  _: {colour: red, prompt: [a], aliases: {x: y}, hidden: maybe}
  dog: [poodle, [husky]]
  dog: [beagle]
  cat: tabby
  bird:
    - _: {id: x}
  fish:
    - dog
  "": [x]
"""
    assert problems_of(write("t.yaml", text)).splitlines() == [
        "t.yaml:2: unknown attribute 'colour'",
        "t.yaml:2: the attribute 'prompt' is a text",
        "t.yaml:2: aliases are a text or a list of texts",
        "t.yaml:2: the attribute 'hidden' is true or false",
        "t.yaml:4: the key 'dog' is there 2 times",
        "t.yaml:3: a list holds names, or mappings of names to children",
        "t.yaml:5: 'tabby': children are a list or a mapping",
        "t.yaml:7: a list holds names, or mappings of names to children",
        "t.yaml:10: a node without a name",
        "t.yaml:4: 'dog' is listed twice under 'animal', first at t.yaml:3",
        "t.yaml:9: 'dog' has 2 parents: 'animal' (t.yaml:3), 'fish' (t.yaml:9)",
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.yaml", "dog: [poodle]\ncat: {tabby: [], siamese: []}\n"),
        ("t.yaml", "- dog: [poodle]\n- cat: [tabby, siamese]\n"),
        ("t.json", '{"dog": ["poodle"], "cat": {"tabby": [], "siamese": []}}'),
    ],
)
def test_several_tops_get_a_root_above_them(write, name: str, text: str) -> None:
    tree = read_hierarchy(write(name, text))
    assert tree.ids == ("root", "dog", "poodle", "cat", "tabby", "siamese")
    assert tree.parent.tolist() == [-1, 0, 1, 0, 3, 3]
    assert read_hierarchy(write(name, text), virtual_root="pet").ids[:2] == ("pet", "dog")


def test_one_top_is_the_root_and_a_node_of_the_roots_name_stays_unique(write) -> None:
    assert read_hierarchy(write("t.yaml", "pet: [dog, cat]\n")).ids == ("pet", "dog", "cat")
    with pytest.raises(HierarchyFormatError, match="'root' is a node already"):
        read_hierarchy(write("t.yaml", "root: [carrot]\nleaf: [spinach]\n"))


def test_edges_with_several_roots_are_refused_until_a_root_is_named(write) -> None:
    path = write("t.csv", "child,parent\npoodle,dog\ntabby,cat\n")
    with pytest.raises(MultipleRootsError, match=r"2 roots: 'dog', 'cat'.*one new node"):
        read_hierarchy(path)
    assert read_hierarchy(path, virtual_root="pet").ids == ("pet", "dog", "poodle", "cat", "tabby")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [b]\nc: *x\n", r"t.yaml:1: anchor or alias 'x'"),
        ("a: [b\nc: d\n", r"t.yaml:2: not YAML"),
        ("a: !!python/object/apply:os.system [ls]\n", r"t.yaml:1: tag"),
        ("a: !!str b\n", "quote plain text"),
        ("a: [b]\n---\nc: [d]\n", r"t.yaml:2: a second document"),
        ("? [a, b]\n: c\n", r"t.yaml:1: a key is text"),
        ("", "empty"),
        ("# nothing\n", "empty"),
        ("just text", "a mapping of nodes"),
        ("a: [b\x07]", "not YAML"),
    ],
)
def test_yaml_that_is_refused(text: str, message: str, write) -> None:
    with pytest.raises(HierarchyFormatError, match=message):
        read_hierarchy(write("t.yaml", text))


def test_alias_bomb_is_refused_at_its_first_anchor(write) -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{b}: &{b} [*{a},*{a},*{a},*{a},*{a},*{a},*{a},*{a}]"
        for a, b in zip("abcdefghijklmno", "bcdefghijklmnop", strict=True)
    ]
    with pytest.raises(HierarchyFormatError, match=r":1: anchor or alias 'a'"):
        read_hierarchy(write("bomb.yaml", "\n".join(lines)))


@pytest.mark.parametrize("name", ["deep.yaml", "deep.json"])
def test_deep_nesting_is_refused(name: str, write) -> None:
    path = write(name, '{"a": ' * 200 + "[]" + "}" * 200)
    with pytest.raises(HierarchyLimitError, match="nested deeper than 136"):
        read_hierarchy(path)
    with pytest.raises(HierarchyLimitError, match="nested deeper than 136"):
        read_hierarchy(write(name, "[" * 100_000))
    shallow = write("s" + name, '{"a": {"b": {"c": {"d": []}}}}')
    with pytest.raises(HierarchyLimitError, match="'d' has depth 3; at most 2"):
        read_hierarchy(shallow, limits=HierarchyLimits(max_depth=2))


@pytest.mark.parametrize("name", ["many.yaml", "many.json"])
def test_too_many_values_are_refused_while_parsing(name: str, write) -> None:
    path = write(name, json.dumps({"a": [f"n{i}" for i in range(200)]}))
    with pytest.raises(HierarchyLimitError, match="values"):
        read_hierarchy(path, limits=HierarchyLimits(max_nodes=10))
    with pytest.raises(HierarchyLimitError, match="more than 100 nodes"):
        read_hierarchy(path, limits=HierarchyLimits(max_nodes=100))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": ["b",]}', r"t.json:1: not JSON: a value expected, found '\]"),
        ('{"a"\n: ["b"\n "c"]}', r"t.json:3: not JSON: ',' expected, found '\"'"),
        ('{"a": ["b"]} x', "text after the end"),
        ('{"a": ["b', "without its closing quote"),
        ('{"a": ["\\x"]}', "not JSON: Invalid"),
        ("{'a': []}", "double quotes"),
        ('{"a": [nul]}', "a value expected"),
        ('{"a": NaN}', "a value expected"),
        ("", "a value expected"),
        ('{"a": ["\\ud800"]}', r"t.json:1: lone surrogate U\+D800"),
        ('{"a": ["b\\u0007"]}', r"U\+0007"),
        ('{"a": ["b"], "a": ["c"]}', "'a' is there 2 times"),
    ],
)
def test_json_that_is_refused(text: str, message: str, write) -> None:
    with pytest.raises(HierarchyFormatError, match=message):
        read_hierarchy(write("t.json", text), "nested")


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


# ---- anything at all -----------------------------------------------------------------------------

WORDS = ["n00000001", "child", "parent", ": ", "- ", "id", "*x", "&x", "null", "---", '"\\ud800"']
PIECES = st.sampled_from([*"ab_,[]{}\"'|\t\\#\ufeffé?!\n ", *WORDS])


@pytest.mark.parametrize("suffix", [".yaml", ".json", ".csv", ".tsv", ".txt"])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(text="")
@example(text="\x1b\n0")
@given(text=st.one_of(st.lists(PIECES, max_size=25).map("".join), st.text(max_size=40)))
def test_any_text_gives_a_tree_or_a_typed_error(suffix: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / f"any{suffix}"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        tree = read_hierarchy(path)
    except HierarchyError:
        return  # any other exception fails the test
    assert Hierarchy.from_json(tree.to_json()) == tree


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("a\x1b.yaml", "a: [b, c]", "its name contains the control character U\\+001B"),
        ("t.csv", "kind\x07,leaf\na,b\na,c", "the name of a rank contains the control character"),
        ("t.csv", f"{'k' * 600},leaf\na,b\na,c", "the name of a rank has 600 characters"),
    ],
)
def test_what_no_document_may_hold_comes_from_no_file(
    file: str, text: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / file
    path.write_text(text, encoding="utf-8")
    with pytest.raises(HierarchyError, match=message):
        read_hierarchy(path)


def test_ranks_are_as_many_as_a_document_may_hold() -> None:
    ranks = {f"r{i}": ["a"] for i in range(257)}
    with pytest.raises(HierarchyLimitError, match="257 ranks, the limit is 256"):
        Hierarchy.from_nodes([Node(id="a")], name="t", ranks=ranks)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"name": "a" * 513}, "name has 513 characters"),
        ({"name": "a\nb"}, "control character"),
        ({"ranks": [{"name": f"r{i}", "nodes": ["a"]} for i in range(257)]}, "257 ranks"),
        ({"ranks": [{"name": "r", "nodes": [1] * 21}]}, "21 nodes in one of ranks"),
        ({"ranks": [{"name": f"r{i}", "nodes": ["a"] * 9} for i in range(3)]}, "nodes in ranks"),
        ({"ranks": [{"name": "r" * 513, "nodes": ["a"]}]}, "name of a rank"),
        ({"dropped_edges": [["a", "b"]] * 81}, "81 dropped edges"),
        ({"dropped_edges": [["a" * 33] * 33]}, "33 ids"),
        ({"provenance": {f"k{i}": "v" for i in range(65)}}, "65 entries in provenance"),
        ({"provenance": {"k": "v" * 8193}}, "8193 characters"),
        ({"provenance": {"k": "\ud800"}}, "lone surrogate"),
        ({f"k{i}": 1 for i in range(40)}, "keys"),
        ({"nodes": [{"id": "a", "aliases": [1] * 65}]}, "65 aliases"),
    ],
)
def test_what_stands_beside_the_nodes_is_bounded_too(more: dict, message: str) -> None:
    document = {"format": "robustzs-hierarchy", "schema_version": 1, "name": "t"}
    document |= {"nodes": [{"id": "a"}], **more}
    with pytest.raises(HierarchyError, match=message):
        Hierarchy.from_json(json.dumps(document), limits=HierarchyLimits(max_nodes=20))
