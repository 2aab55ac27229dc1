"""Temperature and thresholds from the scores of labelled images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robustzs.answer import StopRule
from robustzs.calibration.conformal import (
    conformal_rank,
    conformal_theta,
    least_samples,
    path_scores,
)
from robustzs.calibration.document import HeldOut, Target, TemperatureRecord
from robustzs.calibration.temperature import fit_temperature
from robustzs.errors import InsufficientCalibrationDataError, UsageError
from robustzs.hierarchy.tree import Hierarchy
from robustzs.metrics.intervals import wilson
from robustzs.metrics.verdicts import ProbArray, answers_at, as_nodes, is_right

IntArray = NDArray[np.int64]
NodeProbs = Callable[[IntArray, float], ProbArray]
"""From rows and a temperature to node probabilities ``[n_rows, n_nodes]``."""
LeafLogits = Callable[[IntArray], NDArray[np.floating]]
"""From rows to logits ``[n_rows, n_leaves]``, scaled, not tempered."""

_TEMPERATURE_SHARE = 0.2
_HELDOUT_SHARE = 1.0 / 3.0  # of what is left after the temperature
_ROWS = 1024  # scored together, so that memory does not grow with the images


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What calibration found.

    Args:
        temperature: The temperature in use.
        record: Where it comes from.
        targets: One threshold for each target, ascending in accuracy.
    """

    temperature: float
    record: TemperatureRecord
    targets: tuple[Target, ...]


def fit(
    node_probs: NodeProbs,
    truth: NDArray[np.integer],
    tree: Hierarchy,
    accuracies: Sequence[float],
    *,
    leaf_logits: LeafLogits | None,
    temperature: float,
    source: str = "model",
    rule: StopRule = "greedy",
    seed: int = 0,
) -> Fitted:
    """Fit the temperature, set a threshold for every target, measure on the rest.

    The images are shuffled and split: a fifth sets the temperature (none, when it is kept), of the
    others two thirds set theta and one third measures. The three parts do not overlap, which the
    guarantee needs.

    Args:
        node_probs: Gives node probabilities.
        truth: Node indices ``[n]``.
        tree: The tree.
        accuracies: Target hierarchical accuracies, in (0, 1).
        leaf_logits: Gives logits to fit the temperature on; ``None`` keeps ``temperature``.
        temperature: Where it is not fitted.
        source: Where that one comes from, ``model`` or ``user``.
        rule: How paths are chosen.
        seed: Of the split.

    Raises:
        InsufficientCalibrationDataError: Too few images for a target or for the temperature.
        CalibrationError: The images set no temperature.
        UsageError: An accuracy out of range.
    """
    true = as_nodes(truth, tree)
    alphas = _alphas(accuracies)
    first, second, third = _split(len(true), seed, fits=leaf_logits is not None)
    _enough(len(true), len(second), alphas)
    record = TemperatureRecord.model_validate({"source": source})
    if leaf_logits is not None:
        found = fit_temperature(leaf_logits(first), true[first], tree)
        temperature = found.temperature
        record = TemperatureRecord(
            source="fitted", n=found.n, nll_before=found.nll_before, nll_after=found.nll_after
        )
    scores = np.concatenate(
        [
            path_scores(node_probs(rows, temperature), true[rows], tree, rule=rule)
            for rows in _blocks(second)
        ]
    )
    thetas = [conformal_theta(scores, alpha) for alpha in alphas]
    answers = _answers(node_probs, third, tree, temperature, thetas, rule)
    targets = [
        Target(
            alpha=alpha,
            theta=theta,
            n=len(second),
            rank=conformal_rank(len(second), alpha),
            heldout=_measure(given, true[third], tree),
        )
        for alpha, theta, given in zip(alphas, thetas, answers, strict=True)
    ]
    return Fitted(temperature=temperature, record=record, targets=tuple(targets))


def _alphas(accuracies: Sequence[float]) -> list[float]:
    if not accuracies:
        raise UsageError("no target accuracy is given", hint="such as 0.9")
    for accuracy in accuracies:
        if not 0.0 < accuracy < 1.0:
            raise UsageError(
                f"the target accuracy {accuracy} is not within (0, 1)", hint="such as 0.9"
            )
    # rounded, so that 1 - 0.9 is 0.1 in the file
    return [round(1.0 - accuracy, 12) for accuracy in sorted(set(accuracies))]


def _split(n: int, seed: int, *, fits: bool) -> tuple[IntArray, IntArray, IntArray]:
    order = np.random.default_rng(seed).permutation(n)
    n_first = int(n * _TEMPERATURE_SHARE) if fits else 0
    n_third = int((n - n_first) * _HELDOUT_SHARE)
    return order[:n_first], order[n_first : n - n_third], order[n - n_third :]


def _enough(n: int, n_theta: int, alphas: Sequence[float]) -> None:
    for alpha in alphas:
        least = least_samples(alpha)
        if n_theta < least:
            raise InsufficientCalibrationDataError(
                f"{n_theta} of {n} images set theta, too few to promise a hierarchical accuracy "
                f"of {1.0 - alpha:g}",
                hint=f"{least} are needed there: give about {2 * least + 2} images in all, "
                "or a lower target",
            )


def _answers(
    node_probs: NodeProbs,
    rows: IntArray,
    tree: Hierarchy,
    temperature: float,
    thetas: Sequence[float],
    rule: StopRule,
) -> list[IntArray]:
    """For each theta the answers to the images of ``rows``."""
    found: list[list[IntArray]] = [[np.empty(0, np.int64)] for _ in thetas]
    for block in _blocks(rows):
        probs = node_probs(block, temperature)
        for place, theta in enumerate(thetas):
            found[place].append(answers_at(probs, tree, theta=theta, rule=rule))
    return [np.concatenate(parts) for parts in found]


def _blocks(rows: IntArray) -> list[IntArray]:
    return [rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS)]


def _measure(answers: IntArray, truth: IntArray, tree: Hierarchy) -> HeldOut | None:
    if len(answers) == 0:
        return None
    right = is_right(answers, truth, tree)
    low, high = wilson(int(right.sum()), len(right))
    return HeldOut(
        n=len(right),
        hierarchical_accuracy=float(right.mean()),
        low=low,
        high=high,
        specificity=float(np.mean(tree.specificity[answers], dtype=np.float64)),
    )
