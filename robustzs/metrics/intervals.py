"""How sure a measured proportion is, and the difference of two measured on the same images.

Both intervals are score intervals: they invert a test instead of trusting a standard error that is
estimated from the data, so that they stay honest where measurements of robustness live, near 0 and
1 and with few changed verdicts.

Sources: E. B. Wilson 1927; R. G. Newcombe, Statistics in Medicine 17 (1998) 857-872, method 3;
T. Tango, Statistics in Medicine 17 (1998) 891-908; A. C. Davison and D. V. Hinkley, Bootstrap
Methods and their Application (1997), chapters 3.8 (clusters) and 5.3.1 (percentiles).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robustzs.errors import EvaluationError, UsageError

_BoolArray = NDArray[np.bool_]

_BISECTIONS = 60  # halves [-1, 1] to below 1e-17
_RESAMPLES_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """What changed between two runs over the same images.

    Args:
        difference: Accuracy after minus accuracy before, in [-1, 1].
        low: Lower end of the interval.
        high: Upper end.
        n: Images.
        gained: Images right after, wrong before.
        lost: Images right before, wrong after.
        confidence: Of the interval.
        n_clusters: Groups of images that were resampled together; ``None`` for single images.
    """

    difference: float
    low: float
    high: float
    n: int
    gained: int
    lost: int
    confidence: float
    n_clusters: int | None = None

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return self.low > 0.0 or self.high < 0.0


def wilson(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion.

    With ``z`` the normal quantile and ``p = k / n``, the two ``q`` that solve
    ``(p - q)^2 = z^2 q (1 - q) / n``.

    Args:
        k: Successes, 0 to ``n``.
        n: Trials; of none nothing is known, and the interval is ``(0, 1)``.
        confidence: In (0, 1).

    Returns:
        Lower and upper end, within [0, 1]; ``k / n`` lies between them.

    Raises:
        UsageError: Numbers out of range.
    """
    z = _quantile(confidence)
    if not 0 <= k <= n:
        raise UsageError(f"{k} of {n} is not a proportion", hint="0 <= k <= n")
    if n == 0:
        return 0.0, 1.0
    share = k / n
    shrink = 1.0 + z * z / n
    centre = (share + z * z / (2 * n)) / shrink
    half = z * math.sqrt(share * (1.0 - share) / n + z * z / (4.0 * n * n)) / shrink
    # exactly 0 and 1 at the edges, and never past the proportion by a rounding
    low = 0.0 if k == 0 else min(max(centre - half, 0.0), share)
    high = 1.0 if k == n else max(min(centre + half, 1.0), share)
    return low, high


def paired_difference(
    before: ArrayLike, after: ArrayLike, confidence: float = 0.95
) -> PairedDifference:
    """The change in accuracy between two runs over the same images, with Tango's score interval.

    The interval is the set of differences that the score test for paired proportions does not
    reject; it excludes 0 exactly when McNemar's test (without continuity correction) rejects
    equality. Images must be independent: where several show the same thing, use
    :func:`clustered_difference`.

    Args:
        before: bool ``[n]``, which images were right in the first run; n >= 1.
        after: bool ``[n]``, the same images in the second run.
        confidence: In (0, 1).

    Raises:
        EvaluationError: No images.
        UsageError: Not two bool arrays of one length, or a confidence out of range.
    """
    first, second = _pair(before, after)
    n, gained, lost = len(first), int(np.sum(~first & second)), int(np.sum(first & ~second))
    low, high = tango(gained, lost, n, confidence)
    return PairedDifference(
        difference=(gained - lost) / n,
        low=low,
        high=high,
        n=n,
        gained=gained,
        lost=lost,
        confidence=confidence,
    )


def clustered_difference(
    before: ArrayLike,
    after: ArrayLike,
    clusters: ArrayLike,
    confidence: float = 0.95,
    *,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> PairedDifference:
    """The change in accuracy where several images share a concept, with a cluster bootstrap.

    Whole clusters are drawn with replacement, and the difference over the images drawn is taken;
    the interval lies between the percentiles of these differences. It is widened to Tango's where
    that is wider. Where all clusters changed alike a bootstrap sees no spread at all: then it is
    Tango's interval with every cluster counted as one image. With fewer than about 20 clusters
    percentile intervals are too narrow; say how many there were.

    Args:
        before: bool ``[n]``, which images were right in the first run; n >= 1.
        after: bool ``[n]``, the same images in the second run.
        clusters: ``[n]`` integers or strings; images of equal value belong together.
        confidence: In (0, 1).
        n_resamples: Draws, at least 100.
        seed: Of the draws.

    Raises:
        EvaluationError: No images, or fewer than two clusters.
        UsageError: Arrays that do not fit, or numbers out of range.
    """
    first, second = _pair(before, after)
    if n_resamples < 100:
        raise UsageError(f"n_resamples is {n_resamples}", hint="at least 100, better 10000")
    change = second.astype(np.int64) - first
    sums, sizes = _by_cluster(change, np.asarray(clusters))
    n_clusters = len(sizes)
    plain = paired_difference(first, second, confidence)
    if np.ptp(sums / sizes) == 0.0:
        share = n_clusters / plain.n
        low, high = tango(plain.gained * share, plain.lost * share, n_clusters, confidence)
    else:
        drawn = _resampled(sums, sizes, n_resamples, seed)
        tail = (1.0 - confidence) / 2.0
        ends = np.quantile(drawn, [tail, 1.0 - tail])
        low, high = min(float(ends[0]), plain.low), max(float(ends[1]), plain.high)
    return PairedDifference(
        difference=plain.difference,
        low=low,
        high=high,
        n=plain.n,
        gained=plain.gained,
        lost=plain.lost,
        confidence=confidence,
        n_clusters=n_clusters,
    )


def tango(gained: float, lost: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Tango's score interval for the difference of two paired proportions.

    For a supposed difference ``d`` the score statistic is ::

        T(d) = (gained - lost - n d) / sqrt(n (2 q + d (1 - d)))
        q    = (sqrt(B^2 - 4 A C) - B) / (2 A),     A = 2 n,
        B    = (2 n - gained + lost) d - gained - lost,     C = -lost d (1 - d)

    with ``q`` the restricted maximum-likelihood estimate of the probability to be lost. ``T`` falls
    with ``d``; the ends are where it is ``z`` and ``-z``.

    Args:
        gained: Pairs that changed to success; with weights it need not be whole.
        lost: Pairs that changed to failure.
        n: All pairs, > 0 and at least ``gained + lost``.
        confidence: In (0, 1).

    Returns:
        Lower and upper end in [-1, 1]; ``(gained - lost) / n`` lies between them.

    Raises:
        UsageError: Numbers out of range.
    """
    z = _quantile(confidence)
    if not (n > 0 and gained >= 0 and lost >= 0 and gained + lost <= n * (1 + 1e-12)):
        raise UsageError(
            f"{gained} gained and {lost} lost of {n} pairs", hint="counts of disjoint pairs"
        )
    observed = (gained - lost) / n
    low = _crossing(gained, lost, n, z, -1.0, observed)
    high = _crossing(gained, lost, n, -z, observed, 1.0)
    return low, high


def _crossing(
    gained: float, lost: float, n: float, level: float, left: float, right: float
) -> float:
    """Where the score statistic, falling between two differences, passes ``level``."""
    for _ in range(_BISECTIONS):
        middle = (left + right) / 2.0
        if _score(middle, gained, lost, n) > level:
            left = middle
        else:
            right = middle
    return left if level > 0 else right


def _score(difference: float, gained: float, lost: float, n: float) -> float:
    spread = difference * (1.0 - difference)
    a = 2.0 * n
    b = (2.0 * n - gained + lost) * difference - gained - lost
    c = -lost * spread
    root = math.sqrt(max(b * b - 4.0 * a * c, 0.0))
    variance = n * (2.0 * (root - b) / (2.0 * a) + spread)
    excess = gained - lost - n * difference
    if variance <= 0.0:  # only at the ends, where a difference is certain or impossible
        return math.copysign(math.inf, excess) if excess else 0.0
    return excess / math.sqrt(variance)


def _quantile(confidence: float) -> float:
    if not 0.0 < confidence < 1.0:
        raise UsageError(f"confidence is {confidence}", hint="between 0 and 1, such as 0.95")
    return NormalDist().inv_cdf(0.5 + confidence / 2.0)


def _pair(before: ArrayLike, after: ArrayLike) -> tuple[_BoolArray, _BoolArray]:
    first, second = np.asarray(before), np.asarray(after)
    if first.ndim != 1 or first.shape != second.shape:
        raise UsageError(
            f"outcomes before {first.shape} and after {second.shape} do not pair",
            hint="give one verdict for each image, in the same order",
        )
    if len(first) == 0:
        raise EvaluationError("no images to compare", hint="measure at least one image")
    if first.dtype != np.bool_ or second.dtype != np.bool_:
        raise UsageError(
            f"outcomes are {first.dtype} and {second.dtype}, not bool",
            hint="True where an image was right",
        )
    return first, second


def _by_cluster(
    change: NDArray[np.int64], clusters: NDArray[np.generic]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The summed change and the number of images of every cluster."""
    if clusters.shape != change.shape:
        raise UsageError(
            f"clusters {clusters.shape} do not fit {change.shape[0]} images",
            hint="name one cluster for each image",
        )
    _, member, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        raise EvaluationError(
            "all images belong to one cluster, which says nothing about others",
            hint="measure images of at least two clusters, better of twenty",
        )
    sums = np.zeros(len(sizes), np.int64)
    np.add.at(sums, member, change)
    return sums, sizes.astype(np.int64)


def _resampled(
    sums: NDArray[np.int64], sizes: NDArray[np.int64], n_resamples: int, seed: int
) -> NDArray[np.float64]:
    """Differences over clusters drawn with replacement, ``[n_resamples]``."""
    rng = np.random.default_rng(seed)
    found = np.empty(n_resamples)
    for start in range(0, n_resamples, _RESAMPLES_AT_ONCE):
        rows = min(_RESAMPLES_AT_ONCE, n_resamples - start)
        drawn = rng.integers(0, len(sums), (rows, len(sums)))
        found[start : start + rows] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    return found
