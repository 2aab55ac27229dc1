"""Intervals against published and hand-worked numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustzs.errors import EvaluationError, UsageError
from robustzs.metrics.intervals import (
    clustered_difference,
    paired_difference,
    tango,
    wilson,
)

Z = 1.959963984540054  # the 0.975 quantile of the normal distribution


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [  # Newcombe 1998 (857-872), table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(k: int, n: int, low: float, high: float) -> None:
    assert wilson(k, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_by_hand() -> None:
    # 0 of n: (q - 0)^2 = z^2 q (1 - q) / n has the roots 0 and z^2 / (n + z^2)
    assert wilson(0, 10) == pytest.approx((0.0, Z**2 / (10 + Z**2)))
    assert wilson(10, 10)[1] == 1.0
    # 1 of 2 with z^2 = 2 (confidence 2 Phi(sqrt 2) - 1 = erf(1)): (1/2 - q)^2 = q (1 - q), that is
    # q = 1/2 -+ 1/sqrt(8)
    assert wilson(1, 2, math.erf(1.0)) == pytest.approx((0.5 - 8**-0.5, 0.5 + 8**-0.5))


def test_wilson_of_nothing_knows_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("k", "n", "confidence"), [(3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0)])
def test_wilson_refuses_what_is_no_proportion(k: int, n: int, confidence: float) -> None:
    with pytest.raises(UsageError):
        wilson(k, n, confidence)


@given(
    st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
    st.floats(0.5, 0.999),
)
def test_wilson_holds_the_proportion_and_mirrors(pair: tuple[int, int], confidence: float) -> None:
    k, n = pair
    low, high = wilson(k, n, confidence)
    assert 0.0 <= low <= k / n <= high <= 1.0
    mirrored = wilson(n - k, n, confidence)
    assert (1.0 - mirrored[1], 1.0 - mirrored[0]) == pytest.approx((low, high), abs=1e-12)


def test_tango_gives_the_published_interval() -> None:
    # Fagerland, Lydersen, Laake: Statistical Analysis of Contingency Tables (2017), chapter 8:
    # complete response before and after consolidation therapy (59, 6; 16, 80)
    assert tango(6, 16, 161) == pytest.approx((-0.1240, -0.0054), abs=5e-5)


def test_tango_by_hand() -> None:
    # No pair changed: for d > 0, C = 0 and B > 0 give q = 0, so that T^2 = n d / (1 - d) = z^2.
    limit = Z**2 / (100 + Z**2)
    assert tango(0, 0, 100) == pytest.approx((-limit, limit))
    # All gained: for d < 1, B = n d - n, C = 0, q = (1 - d) / 2; T^2 = n (1 - d) / (1 + d) = z^2
    assert tango(100, 0, 100) == pytest.approx(((100 - Z**2) / (100 + Z**2), 1.0))


_counts = st.tuples(st.integers(0, 300), st.integers(0, 300), st.integers(0, 300)).filter(
    lambda counts: sum(counts) > 0
)


@given(_counts, st.floats(0.5, 0.999))
def test_tango_properties(counts: tuple[int, int, int], confidence: float) -> None:
    gained, lost, same = counts
    n = gained + lost + same
    low, high = tango(gained, lost, n, confidence)
    assert -1.0 <= low <= (gained - lost) / n <= high <= 1.0
    swapped = tango(lost, gained, n, confidence)
    assert (-swapped[1], -swapped[0]) == pytest.approx((low, high), abs=1e-9)
    wider = tango(gained, lost, n, (1.0 + confidence) / 2.0)
    assert wider[0] <= low
    assert wider[1] >= high


@given(_counts)
def test_tango_excludes_zero_when_mcnemar_rejects(counts: tuple[int, int, int]) -> None:
    gained, lost, _ = counts
    statistic = abs(gained - lost) / math.sqrt(max(gained + lost, 1))
    low, high = tango(gained, lost, sum(counts))
    if abs(statistic - Z) > 1e-6:
        assert (low > 0.0 or high < 0.0) == (statistic > Z)


def test_coverage_near_the_edge_is_what_it_says() -> None:
    """Robust accuracies near zero: the interval still holds the truth about 95% of the time."""
    rng = np.random.default_rng(3)
    n, p_gain, p_loss = 200, 0.03, 0.01
    drawn = rng.multinomial(n, [p_gain, p_loss, 1 - p_gain - p_loss], size=2000)
    held = [
        low <= p_gain - p_loss <= high
        for gained, lost, _ in drawn.tolist()
        for low, high in [tango(gained, lost, n)]
    ]
    assert 0.93 <= np.mean(held) <= 0.985


def test_paired_difference_counts() -> None:
    before = np.array([True, True, True, False, False])
    after = np.array([True, False, False, True, False])
    found = paired_difference(before, after)
    assert (found.n, found.gained, found.lost) == (5, 1, 2)
    assert found.difference == pytest.approx(-0.2)
    assert (found.low, found.high) == tango(1, 2, 5)
    assert not found.excludes_zero
    assert paired_difference([False] * 50, [True] * 50).excludes_zero


@pytest.mark.parametrize(
    ("before", "after", "error"),
    [
        ([], [], EvaluationError),
        ([True], [True, False], UsageError),
        ([1, 0], [1, 1], UsageError),
        ([[True]], [[True]], UsageError),
    ],
)
def test_paired_difference_refuses(
    before: list[bool], after: list[bool], error: type[Exception]
) -> None:
    with pytest.raises(error):
        paired_difference(before, after)


def test_one_image_a_cluster_is_about_the_paired_interval() -> None:
    rng = np.random.default_rng(0)
    before, after = rng.random(400) < 0.5, rng.random(400) < 0.7
    plain = paired_difference(before, after)
    clustered = clustered_difference(before, after, np.arange(400))
    assert clustered.difference == plain.difference
    assert clustered.n_clusters == 400
    assert (clustered.low, clustered.high) == pytest.approx((plain.low, plain.high), abs=0.01)


def test_copies_of_an_image_add_no_certainty() -> None:
    rng = np.random.default_rng(1)
    before, after = rng.random(60) < 0.4, rng.random(60) < 0.6
    concepts = np.arange(60)
    single = paired_difference(before, after)
    copied = clustered_difference(
        np.repeat(before, 10), np.repeat(after, 10), np.repeat(concepts, 10)
    )
    naive = paired_difference(np.repeat(before, 10), np.repeat(after, 10))
    width = single.high - single.low
    assert naive.high - naive.low < 0.4 * width
    assert copied.high - copied.low == pytest.approx(width, rel=0.1)


def test_clusters_without_spread_count_as_one_image_each() -> None:
    names = np.repeat(["cat", "dog", "fox", "owl"], 25)
    same = np.ones(100, bool)
    found = clustered_difference(same, same, names)
    limit = Z**2 / (4 + Z**2)  # tango(0, 0, 4), by hand above
    assert (found.low, found.high) == pytest.approx((-limit, limit))
    assert (found.gained, found.lost, found.n) == (0, 0, 100)
    turned = clustered_difference(same, ~same, names)
    assert (turned.low, turned.high) == tango(0, 4, 4)


def test_the_seed_decides_the_draws() -> None:
    rng = np.random.default_rng(2)
    before, after = rng.random(90) < 0.5, rng.random(90) < 0.5
    clusters = rng.integers(0, 30, 90)
    runs = [clustered_difference(before, after, clusters, seed=seed) for seed in (0, 0, 1)]
    assert runs[0] == runs[1]
    assert runs[0].difference == runs[2].difference


@pytest.mark.parametrize(
    ("clusters", "n_resamples", "error"),
    [([1, 1, 1], 1000, EvaluationError), ([1, 2], 1000, UsageError), ([1, 2, 3], 10, UsageError)],
)
def test_clustered_difference_refuses(
    clusters: list[int], n_resamples: int, error: type[Exception]
) -> None:
    outcomes = [True, False, True]
    with pytest.raises(error):
        clustered_difference(outcomes, outcomes, clusters, n_resamples=n_resamples)
