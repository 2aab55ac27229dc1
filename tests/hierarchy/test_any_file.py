"""Whatever stands in a file, it is a tree or a typed error, and all of it is bounded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from robustzs.errors import (
    HierarchyError,
    HierarchyLimitError,
)
from robustzs.hierarchy.build import Node
from robustzs.hierarchy.formats import read_hierarchy
from robustzs.hierarchy.limits import HierarchyLimits
from robustzs.hierarchy.tree import Hierarchy

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
