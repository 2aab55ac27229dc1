"""Hierarchical metrics on a tree that fits on paper.

entity -> animal -> dog -> (poodle, husky)
                 -> cat
       -> vehicle -> (car, bus)

Depths: entity 0, animal and vehicle 1, dog, cat, car and bus 2, poodle and husky 3.
Heights: entity 3, animal 2, dog and vehicle 1, leaves 0. Five leaves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from robustzs.errors import (
    EvaluationError,
    LabelMismatchError,
    UnknownNodeError,
    UsageError,
)
from robustzs.hierarchy.build import Node
from robustzs.hierarchy.tree import Hierarchy
from robustzs.metrics.consistency import is_consistent
from robustzs.metrics.curves import (
    calibration_errors_at_depths,
    expected_calibration_error,
    hierarchical_curve,
    risk_coverage,
)
from robustzs.metrics.margins import (
    feasible_margin,
    feasible_margin_per_depth,
    margins_at_depths,
)
from robustzs.metrics.severity import (
    hierarchical_distance,
    hierarchical_scores,
    information_scores,
    lca_distance,
    lca_height,
    mistake_severity,
    tree_induced_error,
)
from robustzs.metrics.summary import summarise
from robustzs.metrics.verdicts import (
    answers_at,
    depth_accuracies,
    flat_right_at_depths,
    greedy_leaves,
    is_right,
    right_at_depths,
    verdicts_at_depth,
)
from tests.hierarchy.trees import animals

TREE = animals()


def at(*names: str) -> np.ndarray:
    return np.array([TREE.index(name) for name in names])


def probs(**leaves: float) -> np.ndarray:
    """One row of node probabilities from those of leaves."""
    row = np.zeros((1, TREE.n_leaves))
    for name, value in leaves.items():
        row[0, TREE.leaf_ids.index(name)] = value
    return TREE.node_probs(row)


def test_right_means_on_one_path() -> None:
    truth = at("poodle", "poodle", "poodle", "poodle", "dog", "dog", "dog")
    said = at("poodle", "dog", "entity", "husky", "husky", "cat", "animal")
    assert is_right(said, truth, TREE).tolist() == [True, True, True, False, True, False, True]


def test_lca_height() -> None:
    # poodle/husky meet at dog (1), poodle/cat at animal (2), poodle/car at entity (3)
    said = at("poodle", "husky", "cat", "car")
    assert lca_height(said, at("poodle"), TREE).tolist() == [0, 1, 2, 3]
    # stopped above the truth: the height of where it stopped
    assert lca_height(at("dog", "entity"), at("poodle"), TREE).tolist() == [1, 3]
    # an inner truth counts through its leaves
    assert lca_height(at("husky", "cat"), at("dog"), TREE).tolist() == [0, 2]


def test_hierarchical_distance_and_mistake_severity() -> None:
    truth = at("poodle", "poodle", "car", "cat")
    first = at("poodle", "cat", "bus", "car")  # heights 0, 2, 1, 3
    second = at("husky", "husky", "car", "cat")  # heights 1, 1, 0, 0
    assert hierarchical_distance(first, truth, TREE) == pytest.approx(6 / 4)
    both = np.stack([first, second], axis=1)
    assert hierarchical_distance(both, truth, TREE) == pytest.approx(8 / 8)
    assert mistake_severity(first, truth, TREE) == pytest.approx(6 / 3)
    assert mistake_severity(truth, truth, TREE) is None
    with pytest.raises(EvaluationError):
        hierarchical_distance(np.empty(0, int), np.empty(0, int), TREE)


def test_easy_mistakes_lower_mistake_severity_but_not_the_distance() -> None:
    """The warning of the documentation: two images, then one of them easily mistaken, too."""
    truth = at("poodle", "poodle")
    before = at("car", "poodle")
    after = at("car", "husky")
    assert mistake_severity(before, truth, TREE) == 3.0
    assert mistake_severity(after, truth, TREE) == 2.0
    assert hierarchical_distance(before, truth, TREE) == 1.5
    assert hierarchical_distance(after, truth, TREE) == 2.0


def test_tree_induced_error() -> None:
    # poodle -> husky: up to dog, down again: 2; poodle (3) -> car (2) through entity: 5
    said = at("poodle", "husky", "car", "animal")
    assert tree_induced_error(said, at("poodle"), TREE).tolist() == [0, 2, 5, 2]
    assert tree_induced_error(at("husky"), at("dog"), TREE).tolist() == [0]


def test_lca_distance() -> None:
    said = at("poodle", "husky", "car")
    assert lca_distance(said, at("poodle"), TREE, by="depth").tolist() == [0.0, 1.0, 3.0]
    # information: poodle log2 5, dog log2 5/2, entity 0
    expected = [0.0, 1.0, math.log2(5)]
    assert lca_distance(said, at("poodle"), TREE).tolist() == pytest.approx(expected)
    with pytest.raises(UsageError):
        lca_distance(said, at("poodle"), TREE, by="edges")  # type: ignore[arg-type]


def test_information_scores() -> None:
    # truth poodle, I = log2 5; said husky, I = log2 5, lca dog, I = log2 5/2
    # said dog: lca dog; said entity: I = 0, 0 / 0 = 1
    said = at("husky", "dog", "entity", "car")
    precision, recall = information_scores(said, at("poodle"), TREE)
    half = math.log2(2.5) / math.log2(5)
    assert precision.tolist() == pytest.approx([half, 1.0, 1.0, 0.0])
    assert recall.tolist() == pytest.approx([half, half, 0.0, 0.0])


def test_hierarchical_scores_leave_the_root_out() -> None:
    # poodle said husky: {animal, dog, husky} and {animal, dog, poodle} share 2
    # car said cat:      {animal, cat} and {vehicle, car} share 0
    # cat said animal:   {animal} and {animal, cat} share 1
    said, truth = at("husky", "cat", "animal"), at("poodle", "car", "cat")
    found = hierarchical_scores(said, truth, TREE)
    assert found.precision == pytest.approx(3 / 6)
    assert found.recall == pytest.approx(3 / 7)
    assert found.f1 == pytest.approx(2 * (1 / 2) * (3 / 7) / (1 / 2 + 3 / 7))


def test_who_only_says_thing_says_nothing_wrong() -> None:
    found = hierarchical_scores(at("entity", "entity"), at("car", "cat"), TREE)
    assert (found.precision, found.recall, found.f1) == (1.0, 0.0, 0.0)
    wrong = hierarchical_scores(at("car"), at("cat"), TREE)
    assert (wrong.precision, wrong.recall, wrong.f1) == (0.0, 0.0, 0.0)


def test_verdicts_at_each_depth() -> None:
    # dog 0.40 = 0.25 + 0.15; animal 0.60; vehicle 0.40 = 0.30 + 0.10
    row = probs(poodle=0.25, husky=0.15, cat=0.20, car=0.30, bus=0.10)
    names = [TREE.ids[int(verdicts_at_depth(row, TREE, depth)[0])] for depth in range(4)]
    # depth 2: dog 0.40 beats car 0.30; depth 3: car 0.30 beats poodle 0.25
    assert names == ["entity", "animal", "dog", "car"]
    assert TREE.ids[int(greedy_leaves(row, TREE)[0])] == "poodle"
    assert right_at_depths(row, at("husky"), TREE).tolist() == [[True, True, True, False]]
    assert right_at_depths(row, at("car"), TREE).tolist() == [[True, False, False, True]]
    # flat top-1 is car: its ancestors are entity, vehicle, car, car
    assert flat_right_at_depths(at("car"), at("husky"), TREE).tolist() == [
        [True, False, False, False]
    ]
    # an inner truth: dog is right where a dog, or what is above dogs, is said
    assert right_at_depths(row, at("dog"), TREE).tolist() == [[True, True, True, False]]
    assert right_at_depths(row, at("vehicle"), TREE).tolist() == [[True, False, False, True]]


def test_depth_accuracies_count_who_reaches() -> None:
    rows = np.concatenate([probs(poodle=1.0), probs(car=1.0), probs(car=1.0)])
    truth = at("poodle", "car", "cat")
    found = depth_accuracies(right_at_depths(rows, truth, TREE), truth, TREE)
    assert [entry.accuracy for entry in found] == pytest.approx([1.0, 2 / 3, 2 / 3, 2 / 3])
    assert [entry.n_reaching for entry in found] == [3, 3, 3, 1]
    assert all(entry.low <= entry.accuracy <= entry.high for entry in found)


def test_answers_stop_where_nothing_is_above_theta() -> None:
    row = probs(poodle=0.25, husky=0.15, cat=0.20, car=0.30, bus=0.10)
    for theta, name in [(0.2, "poodle"), (0.25, "dog"), (0.5, "animal"), (0.6, "entity")]:
        # masses are float32: 0.6 is a little more there, so that 0.6 needs care
        stop = answers_at(row, TREE, theta=theta + 1e-6)
        assert TREE.ids[int(stop[0])] == name


def test_hidden_nodes_are_no_answers() -> None:
    nodes = [
        Node(id="root"),
        Node(id="spacer", parent_id="root", hidden=True),
        Node(id="a", parent_id="spacer"),
        Node(id="b", parent_id="spacer"),
        Node(id="c", parent_id="root"),
    ]
    tree = Hierarchy.from_nodes(nodes, name="with a spacer")
    leaf = dict(zip(tree.leaf_ids, range(3), strict=True))
    row = np.zeros((1, 3))
    row[0, leaf["a"]], row[0, leaf["b"]], row[0, leaf["c"]] = 0.5, 0.4, 0.1
    node_probs = tree.node_probs(row)
    assert tree.ids[int(answers_at(node_probs, tree, theta=0.6)[0])] == "root"
    curve = hierarchical_curve(node_probs, [tree.index("a")], tree)
    assert curve.specificity.tolist() == pytest.approx([0.0, 1.0])


def test_consistency_asks_every_branch() -> None:
    def logits(**values: float) -> np.ndarray:
        row = np.zeros(len(TREE))
        for name, value in values.items():
            row[TREE.index(name)] = value
        return row

    rows = np.stack(
        [
            logits(animal=1, dog=1, poodle=1),  # right all the way
            logits(vehicle=1, dog=1, poodle=1),  # the first branch is wrong
            logits(animal=1, cat=1, poodle=1),  # the second is
            logits(animal=1, dog=1, poodle=1),  # the leaf is
        ]
    )
    said = at("poodle", "poodle", "poodle", "husky")
    truth = at("poodle", "poodle", "poodle", "poodle")
    assert is_consistent(rows, said, truth, TREE).tolist() == [True, False, False, False]
    # an inner truth asks nothing of the branches below it
    assert is_consistent(rows[:1], at("husky"), at("dog"), TREE).tolist() == [True]
    with pytest.raises(LabelMismatchError):
        is_consistent(rows[:, 1:], said, truth, TREE)


def test_expected_calibration_error() -> None:
    # two bins: (0, 0.5]: 0.2 wrong, 0.4 right: accuracy 1/2, confidence 0.3, gap 0.2, n 2
    #           (0.5, 1]: 0.9 right, 0.5 + 0.2 wrong: accuracy 1/2, confidence 0.8, gap 0.3, n 2
    confidence = [0.2, 0.4, 0.9, 0.7]
    right = [False, True, True, False]
    error = expected_calibration_error(confidence, right, n_bins=2)
    assert error == pytest.approx(0.5 * 0.2 + 0.5 * 0.3)
    # 0.5 belongs to the lower bin, 0 to the first
    assert expected_calibration_error([0.5, 0.0], [True, False], n_bins=2) == pytest.approx(0.25)
    assert expected_calibration_error([1.0, 1.0], [True, True]) == 0.0


def test_calibration_error_at_depths() -> None:
    rows = np.concatenate([probs(poodle=0.7, car=0.3)] * 2)
    errors = calibration_errors_at_depths(rows, at("poodle", "car"), TREE)
    # depth 0 is sure and right; below, 0.7 is right in one of two
    assert errors == pytest.approx([0.0, 0.2, 0.2, 0.2], abs=1e-6)


def test_risk_coverage() -> None:
    # by confidence: right, wrong, right: risks 0, 1/2, 1/3
    curve = risk_coverage([0.9, 0.5, 0.7], [True, True, False])
    assert curve.coverage.tolist() == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert curve.risk.tolist() == pytest.approx([0.0, 1 / 2, 1 / 3])
    assert curve.area == pytest.approx((1 / 2 + 1 / 3) / 3)
    # equal confidences: half a mistake each, whichever comes first
    for right in ([True, False], [False, True]):
        assert risk_coverage([0.5, 0.5], right).risk.tolist() == pytest.approx([0.5, 0.5])


def test_hierarchical_curve() -> None:
    rows = np.concatenate([probs(poodle=0.5, husky=0.25, cat=0.25), probs(poodle=1.0)])
    truth = at("husky", "poodle")
    curve = hierarchical_curve(rows, truth, TREE)
    # specificity: animal 1 - log 3 / log 5 = a, dog 1 - log 2 / log 5 = d, poodle 1
    a, d = 1 - math.log(3) / math.log(5), 1 - math.log(2) / math.log(5)
    # theta 1:          entity, entity
    # below 1:          animal, poodle     right, right
    # below 0.75:       dog, poodle        right, right
    # below 0.5:        poodle, poodle     wrong, right
    assert curve.theta.tolist() == [1.0, 0.75, 0.5, 0.0]
    expected = [0.0, (a + 1) / 2, (d + 1) / 2, 1.0]
    assert curve.specificity.tolist() == pytest.approx(expected, abs=1e-6)
    assert curve.accuracy.tolist() == pytest.approx([1.0, 1.0, 1.0, 0.5])
    # only the last piece has risk: width 1 - (d + 1) / 2, mean risk 1/4
    assert curve.area == pytest.approx((1 - (d + 1) / 2) / 4, abs=1e-6)


def test_margins_at_depths() -> None:
    row = probs(poodle=0.25, husky=0.15, cat=0.20, car=0.30, bus=0.10)
    found = margins_at_depths(row, at("husky"), TREE)[0]
    expected = [
        math.inf,
        math.log(0.60 / 0.40),  # animal against vehicle
        math.log(0.40 / 0.30),  # dog against car
        math.log(0.15 / 0.30),  # husky against car
    ]
    assert found.tolist() == pytest.approx(expected, abs=1e-5)
    # inner truth: its whole mass against what lies beside it
    inner = margins_at_depths(row, at("vehicle"), TREE)[0]
    assert inner[2] == pytest.approx(math.log(0.40 / 0.40), abs=1e-5)  # vehicle against dog
    assert inner[3] == pytest.approx(math.log(0.40 / 0.25), abs=1e-5)  # vehicle against poodle


@dataclass
class _Geometry:
    kind: str = "poincare"
    curvature: float | None = 1.0
    image_scale: float | None = 1.0
    text_scale: float | None = 1.0


def test_feasible_margin_has_the_table_of_the_theory() -> None:
    # 4 artanh(norm) for curvature -1 and logit scale 1
    norms = [0.1, 0.3, 0.5, 0.7, 0.9, 0.99]
    table = [0.40, 1.24, 2.20, 3.47, 5.89, 10.6]
    found = feasible_margin(norms, _Geometry(), logit_scale=1.0)  # type: ignore[arg-type]
    assert found.tolist() == pytest.approx(table, rel=5e-3)
    flat = feasible_margin(norms, _Geometry(kind="cosine"), logit_scale=10.0)  # type: ignore[arg-type]
    assert flat.tolist() == [20.0] * 6
    with pytest.raises(UsageError):
        feasible_margin([1.0], _Geometry(), logit_scale=1.0)  # type: ignore[arg-type]


def test_feasible_margin_is_the_distance_of_opposite_points() -> None:
    from robustzs.scoring import poincare_distance

    point = np.array([[0.3, 0.4]])
    distance = poincare_distance(point, -point, 0.5)[0, 0]
    geometry = _Geometry(curvature=0.5)
    margin = feasible_margin([0.5], geometry, logit_scale=7.0)[0]  # type: ignore[arg-type]
    # the image at the class itself: logits 0 and -7 d
    assert margin == pytest.approx(7.0 * distance)


def test_feasible_margin_per_depth() -> None:
    norms = 0.2 * (1.0 + TREE.depth)
    classes = np.stack([norms, np.zeros(len(TREE))], axis=1)
    found = feasible_margin_per_depth(classes, TREE, _Geometry(), logit_scale=2.0)  # type: ignore[arg-type]
    assert found.tolist() == pytest.approx([8.0 * math.atanh(x) for x in (0.2, 0.4, 0.6, 0.8)])
    with pytest.raises(LabelMismatchError):
        feasible_margin_per_depth(classes[1:], TREE, _Geometry(), logit_scale=2.0)  # type: ignore[arg-type]


def test_summary() -> None:
    rows = np.concatenate(
        [
            probs(poodle=0.5, husky=0.4, cat=0.1),  # truth husky: dog at theta 0.6
            probs(car=0.9, bus=0.1),  # truth car: car
            probs(cat=0.8, car=0.2),  # truth bus: cat
        ]
    )
    found = summarise(rows, at("husky", "car", "bus"), TREE, theta=0.6)
    d = 1 - math.log(2) / math.log(5)
    assert (found.n, found.top1) == (3, pytest.approx(1 / 3))
    assert found.hierarchical_accuracy == pytest.approx(2 / 3)
    assert found.specificity == pytest.approx((d + 1 + 1) / 3)
    assert found.hd1 == pytest.approx((1 + 0 + 3) / 3)
    assert found.mistake_severity == pytest.approx(2.0)
    # dog {animal, dog} in {animal, dog, husky}; car; cat {animal, cat} against {vehicle, bus}
    assert found.scores.precision == pytest.approx(4 / 6)
    assert found.scores.recall == pytest.approx(4 / 7)
    assert [entry.accuracy for entry in found.depths] == pytest.approx([1, 2 / 3, 2 / 3, 1 / 3])
    assert len(found.calibration_errors) == 4
    with pytest.raises(EvaluationError):
        summarise(rows[:0], np.empty(0, int), TREE, theta=0.6)


def test_what_does_not_fit_is_refused() -> None:
    row = probs(car=1.0)
    with pytest.raises(LabelMismatchError):
        right_at_depths(row[:, 1:], at("car"), TREE)
    with pytest.raises(LabelMismatchError):
        right_at_depths(row, at("car", "bus"), TREE)
    with pytest.raises(UnknownNodeError):
        is_right([99], at("car"), TREE)
    with pytest.raises(UnknownNodeError):
        is_right([0.5], at("car"), TREE)
    with pytest.raises(UsageError):
        answers_at(row, TREE, theta=0.5, rule="jump")  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        expected_calibration_error([1.5], [True])
    with pytest.raises(EvaluationError):
        risk_coverage([], [])
