"""The temperature that makes leaf probabilities mean what they say, by maximum likelihood."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robustzs.errors import CalibrationError, LabelMismatchError
from robustzs.hierarchy.shape import TreeShape
from robustzs.metrics.verdicts import as_nodes

Float64Array = NDArray[np.float64]

LOWEST = 1e-2
HIGHEST = 1e2
_GRID = 41  # places of the first look; golden section goes on between the best one's neighbours
_STEPS = 60
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
_CHUNK_ROWS = 1024


@dataclass(frozen=True, kw_only=True)
class TemperatureFit:
    """A fitted temperature.

    Args:
        temperature: To divide logits by.
        nll_before: Mean negative log-likelihood in nats at temperature 1.
        nll_after: At the fitted one.
        n: Images.
    """

    temperature: float
    nll_before: float
    nll_after: float
    n: int


def negative_log_likelihood(
    leaf_logits: ArrayLike, truth: ArrayLike, tree: TreeShape, *, temperature: float = 1.0
) -> float:
    """Mean ``-log p(truth)`` in nats; the mass of an inner truth is that of its leaves.

    Args:
        leaf_logits: ``[n, n_leaves]`` in leaf order, scaled, not tempered; n >= 1.
        truth: Node indices ``[n]``.
        tree: The tree.
        temperature: > 0.

    Raises:
        LabelMismatchError: Shapes that do not fit.
        CalibrationError: No images.
    """
    logits, true = _checked(leaf_logits, truth, tree)
    return _nll(logits, true, tree, math.log(temperature))


def fit_temperature(leaf_logits: ArrayLike, truth: ArrayLike, tree: TreeShape) -> TemperatureFit:
    """The temperature in [0.01, 100] of least negative log-likelihood (Guo et al. 2017).

    For leaves as truths the likelihood is concave in ``1 / temperature`` and the optimum is the
    only one; with inner truths a grid over the whole range finds the valley first.

    Args:
        leaf_logits: ``[n, n_leaves]`` in leaf order, scaled, not tempered; n >= 1.
        truth: Node indices ``[n]``.
        tree: The tree.

    Raises:
        CalibrationError: No images, or no optimum inside the range: everything is right, nothing
            is, or the truth is the root.
        LabelMismatchError: Shapes that do not fit.
    """
    logits, true = _checked(leaf_logits, truth, tree)
    places = np.linspace(math.log(LOWEST), math.log(HIGHEST), _GRID)
    values = [_nll(logits, true, tree, float(place)) for place in places]
    best = int(np.argmin(values))
    if best in (0, _GRID - 1) or max(values) - min(values) < 1e-12:
        raise CalibrationError(
            f"{len(true)} images set no temperature between {LOWEST:g} and {HIGHEST:g}: all are "
            "right, or their answers have nothing to do with their labels",
            hint="give more images, check the labels, or keep the model's temperature",
        )
    low, high = float(places[best - 1]), float(places[best + 1])
    place = _golden_section(logits, true, tree, low, high)
    return TemperatureFit(
        temperature=math.exp(place),
        nll_before=_nll(logits, true, tree, 0.0),
        nll_after=_nll(logits, true, tree, place),
        n=len(true),
    )


def _golden_section(
    logits: Float64Array, truth: NDArray[np.int64], tree: TreeShape, low: float, high: float
) -> float:
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = _nll(logits, truth, tree, left), _nll(logits, truth, tree, right)
    for _ in range(_STEPS):
        if high - low < 1e-7:
            break
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = _nll(logits, truth, tree, left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = _nll(logits, truth, tree, right)
    return (low + high) / 2.0


def _nll(
    logits: Float64Array, truth: NDArray[np.int64], tree: TreeShape, log_temperature: float
) -> float:
    total = 0.0
    leaves = np.arange(tree.n_leaves)
    for start in range(0, len(truth), _CHUNK_ROWS):
        rows = slice(start, start + _CHUNK_ROWS)
        scaled = logits[rows] * math.exp(-log_temperature)
        true = truth[rows, None]
        inside = (tree.leaf_start[true] <= leaves) & (leaves < tree.leaf_end[true])
        own = np.logaddexp.reduce(np.where(inside, scaled, -np.inf), axis=1)
        total += float(np.sum(np.logaddexp.reduce(scaled, axis=1) - own))
    return total / len(truth)


def _checked(
    leaf_logits: ArrayLike, truth: ArrayLike, tree: TreeShape
) -> tuple[Float64Array, NDArray[np.int64]]:
    logits, true = np.asarray(leaf_logits, np.float64), as_nodes(truth, tree)
    if logits.shape != (len(true), tree.n_leaves):
        raise LabelMismatchError(
            f"leaf_logits {logits.shape} and truth {true.shape} do not fit",
            hint=f"[n, {tree.n_leaves}] and [n]",
        )
    if len(true) == 0:
        raise CalibrationError("no images to calibrate with", hint="give at least one")
    if not np.isfinite(logits).all():
        raise CalibrationError("leaf_logits are not all finite", hint="check the model's features")
    return logits, true
