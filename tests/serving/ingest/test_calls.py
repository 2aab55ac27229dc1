"""The cache key is equal exactly where the same classifier answers; costs are counted before."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from robustzs_serving.ingest import ClassifyCall, ImagePart, check_prompts, count_prompts
from robustzs_serving.ingest.costs import _LEAVES, _NODES
from robustzs_serving.settings import Limits

from robustzs.classifier import Options
from robustzs.errors import LabelError
from robustzs.hierarchy.load import BUILT_IN, load_hierarchy
from robustzs.hierarchy.tree import Hierarchy
from robustzs.labels.label_set import LabelSet
from tests.serving.ingest.asking import TREE, b64, form, read, read_json

CATS = LabelSet.from_names(["cat", "dog"])
IMAGES = (ImagePart(b"x"),)


def call(**fields: Any) -> ClassifyCall:
    return ClassifyCall(images=IMAGES, **fields)


SAME = {
    "labels": [
        read(form(("image", b"a"), ("labels", "cat,dog"))),
        read(form(("image", b"b"), ("labels", '["cat", "dog"]'), ("hierarchy", "flat"))),
        read_json({"image": b64(), "labels": [{"name": "cat"}, {"name": "dog"}]}),
        call(labels=CATS, model="robustzs-lite"),
        call(labels=CATS, on_ambiguous="first"),
        call(labels=CATS, options=Options(n_hyponyms=3)),
        call(label_set_id="pets").resolved(labels=CATS),
    ],
    "numbers": [
        call(options=Options(theta=1, reject=0)),
        call(options=Options(theta=1.0, reject=-0.0)),
        call(options=Options(theta=1.0, reject=0.0), hierarchy=("wordnet",)),
    ],
    "level": [call(options=Options(level=2)), call(options=Options(level="2"))],
    "templates": [call(templates="a {}"), call(templates=("a {}",))],
    "tree": [
        read_json({"image": b64(), "hierarchy": TREE}),
        read_json({"image": b64(), "hierarchy": {**TREE, "nodes": list(TREE["nodes"])}}),
    ],
}
OTHERS = [
    call(),
    call(labels=LabelSet.from_names(["dog", "cat"])),
    call(labels=CATS, hierarchy=("wordnet",)),
    call(labels=CATS, hierarchy=("wordnet",), on_ambiguous="first"),
    call(labels=CATS, hierarchy=("wordnet",), on_unknown="attach"),
    call(labels=CATS, hierarchy=("wordnet", "flat")),
    call(labels=CATS, hierarchy=("flat", "wordnet")),
    call(options=Options(strategy="hyponyms")),
    call(options=Options(strategy="hyponyms", n_hyponyms=3)),
    call(options=Options(reject=True)),
    call(options=Options(reject=1.0)),
    call(options=Options(top_k=3)),
    call(options=Options(root="animal")),
    call(label_set_id="pets"),
    call(label_set_id="cars"),
    call(hierarchy_id="pets"),
    call(templates="articles"),
]


def test_keys_are_equal_exactly_where_the_classifier_is() -> None:
    groups = [*SAME.values(), *([other] for other in OTHERS)]
    for group in groups:
        assert len({one.cache_key for one in group}) == 1, group
    keys = [group[0].cache_key for group in groups]
    for first, second in itertools.combinations(range(len(keys)), 2):
        assert keys[first] != keys[second], (groups[first][0], groups[second][0])


def test_sizes_of_built_in_trees_are_theirs() -> None:
    for name in BUILT_IN:
        tree = load_hierarchy(name).hierarchy
        assert isinstance(tree, Hierarchy)
        assert len(tree.leaf_ids) == _LEAVES[name]
        assert len(tree) == _NODES[name]


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({"labels": CATS}, 2),
        ({"labels": CATS, "templates": ("a {}", "b {}", "c {}")}, 6),
        ({"templates": "openai-imagenet-80"}, 80_000),
        ({"templates": "{}", "hierarchy": ("wordnet-nouns",)}, 25_193),
        ({"labels": CATS, "options": Options(strategy="hyponyms", n_hyponyms=9)}, 20),
        ({"labels": CATS, "options": Options(strategy="topdown"), "hierarchy": ("wordnet",)}, 4),
        ({"labels": CATS, "hierarchy": ("flat", "wordnet")}, 2),
        ({"label_set_id": "pets", "templates": "{}"}, 0),
    ],
)
def test_prompts_are_counted(fields: dict[str, Any], count: int) -> None:
    assert count_prompts(call(**fields)) == count


def test_what_the_deployer_chose_is_not_counted() -> None:
    limits = Limits(max_prompts=10)
    check_prompts(call(hierarchy=("wordnet-nouns",)), limits, n_default_templates=8)
    check_prompts(call(labels=CATS), limits, n_default_templates=5)
    with pytest.raises(LabelError, match="16 prompts, the limit is 10"):
        check_prompts(call(labels=CATS), limits, n_default_templates=8)
    with pytest.raises(LabelError):
        check_prompts(call(options=Options(strategy="hyponyms")), limits)
