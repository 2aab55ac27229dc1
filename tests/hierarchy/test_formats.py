from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from robustzs.errors import (
    HierarchyFormatError,
    HierarchyLimitError,
    MultipleRootsError,
    UsageError,
)
from robustzs.hierarchy.formats import FORMATS, read_hierarchy, sniff_format
from robustzs.hierarchy.limits import HierarchyLimits
from robustzs.hierarchy.tree import Hierarchy
from robustzs.labels import LabelSet
from tests.hierarchy.files import ANIMALS, parents, problems_of
from tests.hierarchy.trees import animals, trees

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
