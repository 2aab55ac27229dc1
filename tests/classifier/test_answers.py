"""What is answered, and why it stops where it stops."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import robustzs
from robustzs import Answer, Classifier, Forest, Hierarchy, LabelSet
from robustzs.answer import PathNode
from robustzs.classifier import Calibration
from robustzs.errors import (
    AmbiguousLabelError,
    BundleManifestError,
    CalibrationMismatchError,
    LabelMismatchError,
    UnknownNodeError,
    UsageError,
)
from robustzs.hierarchy.build import Node
from tests.factories import COLOURS, EMBED_DIM, LEAVES, make_bundle, picture

Load = Callable[..., Classifier]
SCHEMA = Path(robustzs.__file__).parent / "schemas" / "answer.schema.json"


def check(answer: Answer) -> None:
    """What holds for every answer."""
    jsonschema.validate(json.loads(answer.model_dump_json()), json.loads(SCHEMA.read_text()))
    for tree in (answer, *answer.forest):
        path: tuple[PathNode, ...] = tree.path
        assert path[0].probability == 1.0
        probabilities = [node.probability for node in path]
        assert probabilities == sorted(probabilities, reverse=True)
        product = np.cumprod([node.conditional_probability for node in path])
        np.testing.assert_allclose(product, probabilities, rtol=1e-4, atol=1e-9)
        assert [node.depth for node in path] == sorted({node.depth for node in path})
        (on_path,) = [node for node in path if node.id == tree.prediction.id]
        assert on_path.probability == tree.prediction.probability
        if tree.stop.reason == "theta" and on_path is not path[0]:
            assert tree.prediction.probability > tree.stop.theta
        if tree.stop.reason == "theta":
            assert path[path.index(on_path) + 1].probability <= tree.stop.theta
        if tree.stop.reason == "leaf":
            assert tree.prediction.is_leaf
            assert tree.prediction.specificity == 1.0
        assert not {node.id for node in tree.alternatives} & {node.id for node in path}
    assert answer.flat_top1 == answer.top_k[0]
    best = [node.probability for node in answer.top_k]
    assert best == sorted(best, reverse=True)


@pytest.mark.parametrize("strategy", ["marginal", "topdown", "level"])
@pytest.mark.parametrize("rule", ["greedy", "climb"])
@pytest.mark.parametrize("leaf", LEAVES)
def test_a_clear_picture_is_followed_to_its_leaf(
    load: Load, leaf: str, strategy: str, rule: str
) -> None:
    answer = load(strategy=strategy, rule=rule).classify(picture(leaf), name="x.png")
    check(answer)
    assert answer.image == "x.png"
    assert answer.prediction.id == answer.flat_top1.id == leaf
    assert answer.path[-1].id == leaf
    assert answer.stop.reason == "leaf"
    assert answer.strategy == strategy


def test_a_picture_between_two_leaves_stops_above_them(load: Load) -> None:
    answer = load(temperature=3.0).classify(picture("dog"))
    check(answer)
    assert answer.prediction.id == "dog"
    assert answer.stop.reason == "theta"
    assert answer.stop.theta == 0.65
    assert answer.stop.source == "default"
    assert answer.path[-1].id in ("labrador", "poodle")
    assert answer.prediction.n_leaf_descendants == 2
    (other,) = answer.alternatives
    assert {other.id, answer.path[-1].id} == {"labrador", "poodle"}


def test_a_picture_of_nothing_stops_at_the_root(load: Load) -> None:
    answer = load(temperature=30.0, theta=0.7).classify(picture("white"))
    check(answer)
    assert answer.prediction.id == "thing"
    assert answer.prediction.specificity == 0.0
    assert len(answer.alternatives) == 1


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    theta=st.floats(0, 1),
    temperature=st.floats(0.05, 50),
    strategy=st.sampled_from(["marginal", "topdown", "level"]),
    rule=st.sampled_from(["greedy", "climb"]),
    level=st.sampled_from([None, 0, 1, 2, 3, 9]),
    word=st.sampled_from(sorted(COLOURS)),
)
def test_every_answer_keeps_its_promises(fake: Load, word: str, **options: Any) -> None:
    check(fake(**options).classify(picture(word, size=(32, 32))))


def test_a_higher_theta_never_answers_deeper(load: Load) -> None:
    for word in ("labrador", "dog", "white", "animal"):
        depths = [
            load(theta=theta, temperature=4.0).classify(picture(word)).prediction.depth
            for theta in (0.0, 0.3, 0.5, 0.7, 0.9, 0.99, 1.0)
        ]
        assert depths == sorted(depths, reverse=True)
        assert depths[-1] == 0


@pytest.mark.parametrize("level", ["--1", "+-1", "9" * 5000, "\u0661", "1e3"])
def test_what_is_no_depth_is_looked_for_as_a_rank(load: Load, level: str) -> None:
    with pytest.raises(UnknownNodeError):
        load(level=level)


@pytest.mark.parametrize(
    ("level", "expected"), [(0, "thing"), ("1", "animal"), (2, "cat"), (9, "tabby")]
)
def test_a_level_is_answered_whatever_theta(load: Load, level: Any, expected: str) -> None:
    answer = load(level=level, theta=1.0).classify(picture("tabby"))
    check(answer)
    assert answer.prediction.id == expected
    assert answer.stop.reason == "level"


def test_a_rank_that_the_tree_lacks_is_refused(load: Load) -> None:
    with pytest.raises(UnknownNodeError, match="genus"):
        load(level="genus")


def test_a_named_rank_is_a_level(load: Load, tmp_path: Path) -> None:
    path = tmp_path / "ranks.csv"
    rows = ["kingdom,family,species", "animal,dogs,poodle", "animal,cats,tabby", "vehicle,,jeep"]
    path.write_text("\n".join(rows) + "\n")
    classifier = load(hierarchy=path, level="family")
    assert classifier.classify(picture("tabby")).prediction.name == "cats"
    assert classifier.classify(picture("jeep")).prediction.name == "jeep"


def test_spacers_are_never_part_of_an_answer(load: Load) -> None:
    nodes = [
        Node(id="root", name="root"),
        Node(id="spacer", parent_id="root", hidden=True),
        Node(id="tabby", parent_id="spacer"),
        Node(id="jeep", parent_id="spacer"),
        Node(id="poodle", parent_id="root"),
    ]
    tree = Hierarchy.from_nodes(nodes, name="spaced")
    for temperature in (1.0, 30.0):
        answer = load(hierarchy=tree, temperature=temperature).classify(picture("tabby"))
        check(answer)
        shown = {node.id for node in (*answer.path, *answer.alternatives)}
        assert "spacer" not in shown
        assert answer.path[-1].depth == 2
    assert {node.id for node in answer.alternatives} == {"jeep", "poodle"}


def test_below_a_root_only_its_leaves_are_candidates(load: Load) -> None:
    answer = load(root="cat").classify(picture("labrador"))
    check(answer)
    assert answer.path[0].id == "cat"
    assert answer.path[0].depth == 2
    assert {node.id for node in answer.top_k} == {"tabby", "siamese"}
    assert sum(node.probability for node in answer.top_k) == pytest.approx(1.0)
    whole = load().classify(picture("labrador"))
    assert answer.hierarchy == whole.hierarchy
    assert answer.similarity < whole.similarity


def test_an_unknown_root_is_refused(load: Load) -> None:
    with pytest.raises(UnknownNodeError, match="unicorn"):
        load(root="unicorn")


def test_top_k_is_as_long_as_asked_and_possible(load: Load) -> None:
    assert len(load(top_k=2).classify(picture("dog")).top_k) == 2
    answer = load(top_k=1000).classify(picture("dog"))
    assert sorted(node.id for node in answer.top_k) == sorted(LEAVES)
    assert sum(node.probability for node in answer.top_k) == pytest.approx(1.0, abs=1e-6)


def test_equals_come_in_leaf_order(load: Load) -> None:
    classifier = load(top_k=4)
    nothing = np.zeros((1, EMBED_DIM), np.float32)  # equally similar to every label
    (answer,) = classifier.classify_features(nothing, ["nothing"])
    check(answer)
    assert {node.probability for node in answer.top_k} == {float(np.float32(1 / 6))}
    assert tuple(node.id for node in answer.top_k) == classifier.labels.ids[:4]


def test_labels_alone_hang_in_a_flat_tree(load: Load) -> None:
    answer = load(labels=["red", "green", "blue"]).classify(picture("green"))
    check(answer)
    assert answer.hierarchy.name == "flat"
    assert answer.hierarchy.n_nodes == 4
    assert answer.prediction.id == "green"


@pytest.mark.parametrize("make", [list, tuple, iter, LabelSet.from_names, ",".join])
def test_labels_may_be_given_in_many_ways(load: Load, make: Any) -> None:
    classifier = load(labels=make(["red", "green"]))
    assert classifier.labels.ids == ("red", "green")


def test_labels_may_be_a_file(load: Load, tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("red\ngreen\n")
    assert load(labels=path).labels.ids == load(labels=str(path)).labels.ids == ("red", "green")


def test_the_display_name_is_not_the_prompt(load: Load, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("name,prompt\nSuperlabrador 3000,labrador\nkitty,tabby\n")
    answer = load(labels=path).classify(picture("tabby"))
    assert answer.prediction.name == "kitty"
    assert answer.prediction.probability > 0.9


def test_a_forest_answers_in_every_tree(load: Load, tree_file: Path) -> None:
    classifier = load(hierarchy=[tree_file, "flat"], temperature=3.0)
    answer = classifier.classify(picture("dog"))
    check(answer)
    (flat,) = answer.forest
    assert (answer.hierarchy.name, flat.hierarchy.name) == ("tree", "flat")
    assert answer.prediction.id == "dog"
    alone = load(hierarchy="flat", labels=classifier.labels, temperature=3.0)
    assert flat.prediction == alone.classify(picture("dog")).prediction
    assert flat.path == alone.classify(picture("dog")).path


@pytest.mark.parametrize("strategy", ["marginal", "topdown", "level"])
def test_trees_with_other_leaf_orders_agree_on_leaves(
    load: Load, tree_file: Path, tmp_path: Path, strategy: str
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("all: {x: [jeep, tabby, poodle], y: [siamese, labrador, ambulance]}\n")
    for leaf in LEAVES:
        answer = load(hierarchy=[tree_file, other], strategy=strategy, temperature=0.5).classify(
            picture(leaf)
        )
        check(answer)
        assert answer.path[-1].id == leaf
        if strategy == "marginal":
            assert answer.forest[0].path[-1].id == leaf
            assert answer.forest[0].path[-1].probability == pytest.approx(
                answer.path[-1].probability, rel=1e-5
            )


def test_trees_may_be_given_as_objects(load: Load, tree_file: Path) -> None:
    tree = load().hierarchy
    assert isinstance(tree, Hierarchy)
    again = load(hierarchy=tree).classify(picture("poodle"))
    assert again == load().classify(picture("poodle"))
    forest = load(hierarchy=[tree_file, "flat"]).forest
    assert isinstance(forest, Forest)
    assert len(load(hierarchy=forest).classify(picture("poodle")).forest) == 1
    with pytest.raises(LabelMismatchError, match="jeep"):
        load(hierarchy=tree, labels=LEAVES[:-1])
    with pytest.raises(UsageError, match="a path or a tree, not int"):
        load(hierarchy=[tree, 3])


def test_wordnet_is_the_default_and_imagenet_its_labels(load: Load) -> None:
    classifier = load(hierarchy=None)
    answer = classifier.classify(picture("dog"))
    check(answer)
    assert answer.hierarchy.n_leaves == 1000
    assert answer.path[0].name == "entity"
    assert all(node.id.startswith("n") and len(node.id) == 9 for node in answer.path)


def test_ambiguous_labels_are_refused_or_told_of(load: Load) -> None:
    with pytest.raises(AmbiguousLabelError, match="crane"):
        load(labels=["crane", "jeep"], hierarchy="wordnet")
    classifier = load(labels=["crane", "jeep"], hierarchy="wordnet", on_ambiguous="first")
    answer = classifier.classify(picture("jeep"))
    assert answer.warnings == classifier.warnings
    assert any("crane" in warning for warning in answer.warnings)
    assert [resolution.label.name for resolution in classifier.resolutions] == ["crane", "jeep"]


def test_hyponyms_help_a_label_whose_name_says_nothing(load: Load, tmp_path: Path) -> None:
    """The tiny model cannot read "canine", but it knows what a poodle looks like."""
    path = tmp_path / "labels.csv"
    path.write_text("name,synset\ncanine,n02083346\nfeline,n02120997\nmotor vehicle,n03791235\n")
    options = {"labels": path, "hierarchy": "wordnet", "n_hyponyms": 300, "templates": "name"}
    answer = load(strategy="hyponyms", **options).classify(picture("poodle"))
    check(answer)
    assert answer.flat_top1.name == "canine"
    assert load(strategy="hyponyms", **options).classify(picture("jeep")).flat_top1.name == (
        "motor vehicle"
    )
    with pytest.raises(UsageError, match="knows no kinds"):
        load(strategy="hyponyms")


def test_hyponyms_in_a_forest_agree_on_leaves(load: Load, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("name,synset\nfeline,n02120997\ncanine,n02083346\njeep,n03594945\n")
    answer = load(
        labels=path, hierarchy=["flat", "wordnet"], strategy="hyponyms", templates="name"
    ).classify(picture("jeep"))
    check(answer)
    assert answer.path[-1].name == answer.forest[0].path[-1].name == "jeep"
    assert answer.path[-1].probability == pytest.approx(
        answer.forest[0].path[-1].probability, rel=1e-5
    )


def test_none_of_these(load: Load) -> None:
    usual = load().classify(picture("labrador"))
    strict = load(reject=usual.similarity + 0.001).classify(picture("labrador"))
    check(strict)
    assert strict.rejected
    assert strict.stop.reason == "rejected"
    assert strict.prediction.id == "thing"
    assert strict.flat_top1 == usual.flat_top1
    lenient = load(reject=usual.similarity - 0.001).classify(picture("labrador"))
    assert not lenient.rejected
    assert lenient == usual


def test_the_bundle_sets_thresholds(load: Load, tmp_path: Path) -> None:
    def threshold(value: float) -> dict[str, Any]:
        return {"value": value, "source": "tests"}

    model = make_bundle(
        tmp_path / "b",
        theta=threshold(0.3),
        rejection=threshold(0.99),
        low_confidence=threshold(0.9),
    )
    unsure = load(model=model, temperature=3.0).classify(picture("dog"))
    assert (unsure.stop.theta, unsure.stop.source) == (0.3, "bundle")
    assert unsure.low_confidence
    assert not unsure.rejected
    assert not load(model=model).classify(picture("labrador")).low_confidence
    assert load(model=model, reject=True).classify(picture("white")).rejected
    with pytest.raises(UsageError, match="no threshold for rejection"):
        load(reject=True)
    wrong = make_bundle(tmp_path / "c", theta=threshold(1.5))
    with pytest.raises(BundleManifestError, match=r"theta 1\.5"):
        load(model=wrong)


def calibration(classifier: Classifier, **changes: Any) -> Calibration:
    fields: dict[str, Any] = {
        "theta": 0.8,
        "alpha": 0.1,
        "digest": "c" * 64,
        "model_digest": classifier.embedder.bundle.digest,
        "hierarchy_digest": classifier.hierarchy.digest,
        "strategy": "marginal",
        "rule": "greedy",
        "temperature": 1.0,
        "templates_digest": classifier.templates.digest,
    }
    return Calibration(**{**fields, **changes})


def test_theta_comes_from_user_calibration_bundle_default_in_this_order(
    load: Load, tmp_path: Path
) -> None:
    model = make_bundle(tmp_path / "b", theta={"value": 0.3, "source": "tests"})
    stop = (
        load(model=model, calibration=calibration(load(model=model))).classify(picture("dog")).stop
    )
    assert (stop.theta, stop.source, stop.alpha) == (0.8, "calibration", 0.1)
    assert stop.calibration == "c" * 64
    both = load(model=model, calibration=calibration(load(model=model)), theta=0.4)
    stop = both.classify(picture("dog")).stop
    assert (stop.theta, stop.source, stop.alpha, stop.calibration) == (0.4, "user", None, None)


@pytest.mark.parametrize(
    "change",
    [
        {"model_digest": "0" * 64},
        {"hierarchy_digest": "0" * 64},
        {"templates_digest": "0" * 64},
        {"strategy": "level"},
        {"rule": "climb"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_calibration_for_something_else_is_refused(load: Load, change: dict[str, Any]) -> None:
    with pytest.raises(CalibrationMismatchError, match=next(iter(change))):
        load(calibration=calibration(load(), **change))


def test_the_temperature_is_the_calibrations_unless_the_caller_gives_another(load: Load) -> None:
    assert load(calibration=calibration(load(), temperature=2.0)).temperature == 2.0
    with pytest.raises(CalibrationMismatchError, match="temperature"):
        load(calibration=calibration(load(), temperature=2.0), temperature=1.5)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"theta": float("nan")}, "theta must be a finite number"),
    ({"theta": float("inf")}, "theta must be a finite number"),
    ({"theta": -0.01}, "theta must be within"),
    ({"theta": 1.01}, "theta must be within"),
    ({"theta": True}, "theta must be a finite number"),
    ({"theta": "0.5"}, "theta must be a finite number"),
    ({"temperature": 0.0}, "temperature must be within"),
    ({"temperature": -1.0}, "temperature must be within"),
    ({"temperature": float("nan")}, "temperature must be a finite number"),
    ({"top_k": 0}, "top_k must be a whole number"),
    ({"top_k": 1.5}, "top_k must be a whole number"),
    ({"top_k": True}, "top_k must be a whole number"),
    ({"top_k": 10**9}, "top_k must be a whole number"),
    ({"n_hyponyms": 0}, "n_hyponyms must be a whole number"),
    ({"strategy": "magic"}, "unknown strategy 'magic'"),
    ({"rule": "jump"}, "unknown rule 'jump'"),
    ({"level": -1}, "level must be at least 0"),
    ({"level": "-3"}, "level must be at least 0"),
    ({"level": 1.5}, "level must be a depth"),
    ({"level": True}, "level must be a depth"),
    ({"reject": float("nan")}, "reject must be a finite number"),
    ({"reject": "yes"}, "reject must be a finite number"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=[str(o) for o, _ in WRONG])
def test_wrong_options_are_refused_before_anything_is_loaded(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        Classifier.load("/there/is/no/such/model", **options)


def test_the_ball_classifies_too(load: Load, tmp_path: Path) -> None:
    geometry = {"kind": "poincare", "curvature": 1.0, "image_scale": 0.4, "text_scale": 2.0}
    model = make_bundle(tmp_path / "b", geometry=geometry, logit_scale=20.0)
    for leaf in LEAVES:
        answer = load(model=model).classify(picture(leaf))
        check(answer)
        assert answer.flat_top1.id == leaf
        assert answer.similarity < 0.0


def test_more_templates_than_one(load: Load) -> None:
    classifier = load(templates=["a photo of a {}.", "the {}", "{}"])
    assert len(classifier.templates) == 3
    assert classifier.classify(picture("jeep")).prediction.id == "jeep"


def test_a_flat_answer_is_the_best_label_unless_theta_is_given(load: Load) -> None:
    labels = ["labrador", "poodle", "dog"]
    unsure = load(labels=labels, hierarchy="flat", temperature=100.0)
    answer = unsure.classify(picture("poodle"))
    assert answer.prediction.name == "poodle"
    assert answer.prediction.probability < 0.65
    assert (answer.stop.theta, answer.stop.source) == (0.0, "default")
    strict = load(labels=labels, hierarchy="flat", temperature=100.0, theta=0.9)
    assert strict.classify(picture("poodle")).prediction.depth == 0
