"""Temperature and conformal thresholds: worked by hand, and the guarantee by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustzs.calibration.conformal import (
    conformal_rank,
    conformal_theta,
    least_samples,
    path_scores,
)
from robustzs.calibration.fit import fit
from robustzs.calibration.temperature import fit_temperature, negative_log_likelihood
from robustzs.errors import (
    CalibrationError,
    InsufficientCalibrationDataError,
    LabelMismatchError,
    UsageError,
)
from robustzs.hierarchy.tree import Hierarchy
from robustzs.hierarchy.walk import walk
from robustzs.metrics.verdicts import is_right
from robustzs.scoring import softmax
from tests.hierarchy.trees import animals, generators, trees

TREE = animals()


def probs(**leaves: float) -> np.ndarray:
    row = np.zeros((1, TREE.n_leaves))
    for name, value in leaves.items():
        row[0, TREE.leaf_ids.index(name)] = value
    return TREE.node_probs(row)


def test_the_score_is_the_first_wrong_node_of_the_path() -> None:
    row = probs(poodle=0.5, husky=0.25, cat=0.25)  # animal 1, dog 0.75, poodle 0.5
    for truth, score in [("poodle", 0.0), ("husky", 0.5), ("cat", 0.75), ("car", 1.0)]:
        found = path_scores(row, [TREE.index(truth)], TREE)
        assert found.tolist() == pytest.approx([score])
    # inner truths: below them nothing is wrong
    assert path_scores(row, [TREE.index("dog")], TREE).tolist() == [0.0]


@pytest.mark.parametrize(
    ("n", "alpha", "rank"),
    [
        (9, 0.1, 9),  # ceil(10 * 0.9)
        (10, 0.1, 10),  # ceil(9.9)
        (19, 0.1, 18),  # ceil(18)
        (99, 0.05, 95),
        (1, 0.5, 1),
        (4, 0.99, 1),
    ],
)
def test_rank(n: int, alpha: float, rank: int) -> None:
    assert conformal_rank(n, alpha) == rank
    assert conformal_rank(n, 1.0 - (1.0 - alpha)) == rank  # the rounding of a decimal


@pytest.mark.parametrize(("alpha", "least"), [(0.1, 9), (0.05, 19), (0.01, 99), (0.5, 1), (0.9, 1)])
def test_too_few_samples_are_refused(alpha: float, least: int) -> None:
    assert least_samples(alpha) == least
    assert conformal_theta(np.zeros(least), alpha) == 0.0
    with pytest.raises(InsufficientCalibrationDataError, match=f"at least {least}"):
        conformal_theta(np.zeros(least - 1), alpha)


def test_theta_by_hand() -> None:
    # of 9 scores and alpha 0.2: rank ceil(10 * 0.8) = 8
    scores = [0.9, 0.1, 0.8, 0.2, 0.7, 0.3, 0.6, 0.4, 0.5]
    assert conformal_theta(scores, 0.2) == 0.8
    with pytest.raises(UsageError):
        conformal_theta([1.5], 0.5)
    with pytest.raises(UsageError):
        conformal_theta(scores, 0.0)


@given(trees(max_nodes=25), generators(), st.sampled_from(["greedy", "climb"]), st.floats(0, 1))
def test_an_answer_is_right_exactly_where_the_score_is_at_most_theta(
    tree: Hierarchy, rng: np.random.Generator, rule: str, theta: float
) -> None:
    weights = rng.integers(0, 4, (8, tree.n_leaves)) + 1e-3
    node_probs = tree.node_probs(weights / weights.sum(axis=1, keepdims=True))
    truth = rng.integers(0, len(tree), 8)
    scores = path_scores(node_probs, truth, tree, rule=rule)
    for at in (theta, *scores.tolist()):  # ties are where it matters
        answers = [w.answer for w in walk(node_probs, tree, theta=at, rule=rule)]
        assert is_right(answers, truth, tree).tolist() == (scores <= at).tolist()


def simulated(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Leaf logits that say half of what they know, and leaves drawn from what they know."""
    logits = 2.0 * rng.standard_normal((n, TREE.n_leaves))
    leaf_probs = softmax(logits).astype(np.float64)
    drawn = (rng.random((n, 1)) > np.cumsum(leaf_probs, axis=1)).sum(axis=1)
    truth = TREE.leaf_nodes[np.minimum(drawn, TREE.n_leaves - 1)]
    return logits, truth


def test_the_guarantee_holds_on_average_over_draws() -> None:
    rng = np.random.default_rng(0)
    n, alpha = 39, 0.2
    right = []
    for _ in range(400):
        logits, truth = simulated(rng, n + 60)
        node_probs = TREE.node_probs(softmax(1.7 * logits))  # over-confident, too
        scores = path_scores(node_probs, truth, TREE)
        right.append(np.mean(scores[n:] <= conformal_theta(scores[:n], alpha)))
    # 1 - alpha up to 1 - alpha + 1 / (n + 1); ties at score 0 cannot push it higher here
    assert 0.8 - 0.01 <= np.mean(right) <= 0.8 + 1 / 40 + 0.01


def test_temperature_is_found_again() -> None:
    rng = np.random.default_rng(1)
    logits, truth = simulated(rng, 4000)
    found = fit_temperature(3.0 * logits, truth, TREE)
    assert found.temperature == pytest.approx(3.0, rel=0.08)
    assert found.nll_after < found.nll_before
    grid = [
        negative_log_likelihood(3.0 * logits, truth, TREE, temperature=float(t))
        for t in np.geomspace(0.5, 20, 60)
    ]
    assert found.nll_after <= min(grid) + 1e-9


def test_temperature_by_hand() -> None:
    # Two leaves, logits +1 and -1: p = 1 / (1 + exp(-2 / T)). Three of four right: the likelihood
    # is largest at p = 3/4, 2 / T = log 3.
    tree = Hierarchy.from_nodes(
        [node for node in TREE.to_nodes() if node.id in ("entity", "vehicle", "car", "bus")],
        name="two leaves",
    )
    logits = np.tile([1.0, -1.0], (4, 1))
    truth = tree.leaf_nodes[[0, 0, 0, 1]]
    found = fit_temperature(logits, truth, tree)
    assert found.temperature == pytest.approx(2 / math.log(3), rel=1e-5)
    expected = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert found.nll_after == pytest.approx(expected, rel=1e-9)


def test_inner_truths_count_through_their_leaves() -> None:
    logits = np.log(np.array([[0.1, 0.2, 0.3, 0.15, 0.25]]))
    node_probs = TREE.node_probs(np.exp(logits))
    dog = TREE.index("dog")
    found = negative_log_likelihood(logits, [dog], TREE)
    assert found == pytest.approx(-math.log(node_probs[0, dog]), rel=1e-6)


def test_images_that_set_no_temperature_are_refused() -> None:
    logits = np.eye(5)
    with pytest.raises(CalibrationError, match="set no temperature"):
        fit_temperature(logits, TREE.leaf_nodes, TREE)  # all right: the colder the better
    with pytest.raises(CalibrationError, match="set no temperature"):
        fit_temperature(logits, np.zeros(5, int), TREE)  # the root says nothing
    with pytest.raises(CalibrationError, match="no images"):
        fit_temperature(logits[:0], TREE.leaf_nodes[:0], TREE)
    with pytest.raises(LabelMismatchError):
        fit_temperature(logits[:, 1:], TREE.leaf_nodes, TREE)


def test_fit_splits_fits_and_measures() -> None:
    rng = np.random.default_rng(2)
    logits, truth = simulated(rng, 3000)

    def node_probs(rows: np.ndarray, temperature: float) -> np.ndarray:
        return TREE.node_probs(softmax(3.0 * logits[rows] / temperature))

    found = fit(
        node_probs,
        truth,
        TREE,
        [0.9, 0.7],
        leaf_logits=lambda rows: 3.0 * logits[rows],
        temperature=1.0,
    )
    assert found.temperature == pytest.approx(3.0, rel=0.15)
    assert (found.record.source, found.record.n) == ("fitted", 600)
    low, high = found.targets
    assert (low.alpha, high.alpha) == (0.3, 0.1)
    assert (low.n, high.n) == (1600, 1600)
    for target in found.targets:
        assert target.heldout is not None
        assert target.heldout.n == 800
        assert target.heldout.low <= target.heldout.hierarchical_accuracy <= target.heldout.high
        assert target.heldout.hierarchical_accuracy == pytest.approx(target.accuracy, abs=0.05)
    assert low.theta < high.theta
    assert low.heldout is not None
    assert high.heldout is not None
    assert low.heldout.specificity > high.heldout.specificity

    kept = fit(node_probs, truth, TREE, [0.9], leaf_logits=None, temperature=2.0, source="user")
    assert (kept.temperature, kept.record.source, kept.record.n) == (2.0, "user", 0)
    assert kept.targets[0].n == 2000
    with pytest.raises(InsufficientCalibrationDataError, match="10 of 15 images set theta"):
        fit(node_probs, truth[:15], TREE, [0.95], leaf_logits=None, temperature=1.0)
    for wrong in ([], [1.0], [0.0]):
        with pytest.raises(UsageError):
            fit(node_probs, truth, TREE, wrong, leaf_logits=None, temperature=1.0)
