"""The Poincaré ball against geoopt, against the definitions, and against the core's NumPy."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from robustzs_training import geometry

from robustzs import scoring

CURVATURES = [0.1, 1.0, 2.5]


@pytest.fixture(scope="module")
def geoopt() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import geoopt

    return geoopt


def points(n: int, dim: int, curvature: float, *, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(n, dim, generator=generator, dtype=torch.float64)
    radii = torch.rand(n, 1, generator=generator, dtype=torch.float64) * 0.95
    return directions / directions.norm(dim=1, keepdim=True) * radii / curvature**0.5


def mobius_add(u: np.ndarray, v: np.ndarray, r: float) -> np.ndarray:
    uv, uu, vv = u @ v, u @ u, v @ v
    return ((1 + 2 * r * uv + r * vv) * u + (1 - r * uu) * v) / (1 + 2 * r * uv + r * r * uu * vv)


def defined_distance(u: np.ndarray, v: np.ndarray, r: float) -> float:
    """``2 / sqrt(r) artanh(sqrt(r) |-u (+) v|)``."""
    return float(2 / np.sqrt(r) * np.arctanh(np.sqrt(r) * np.linalg.norm(mobius_add(-u, v, r))))


@pytest.mark.parametrize("r", CURVATURES)
def test_distance_is_the_definition(r: float) -> None:
    u, v = points(5, 4, r, seed=1), points(6, 4, r, seed=2)
    wanted = [[defined_distance(a.numpy(), b.numpy(), r) for b in v] for a in u]
    np.testing.assert_allclose(geometry.distance(u, v, r), wanted, rtol=1e-10)
    np.testing.assert_allclose(
        geometry.paired_distance(u, v[:5], r), np.diag(np.array(wanted)[:, :5]), rtol=1e-10
    )


@pytest.mark.parametrize("r", CURVATURES)
def test_everything_agrees_with_geoopt(geoopt: Any, r: float) -> None:
    ball = geoopt.PoincareBall(c=torch.tensor(r, dtype=torch.float64))
    u, v = points(8, 5, r, seed=3), points(8, 5, r, seed=4)
    torch.testing.assert_close(geometry.paired_distance(u, v, r), ball.dist(u, v))
    tangent = points(8, 5, r, seed=5)  # short of where the two libraries' projections begin
    torch.testing.assert_close(geometry.exp_0(tangent, r), ball.expmap0(tangent))
    together = geometry.midpoints(u, torch.zeros(8, dtype=torch.int64), 1, r)[0]
    torch.testing.assert_close(together, ball.weighted_midpoint(u))


@pytest.mark.parametrize("r", CURVATURES)
def test_it_is_what_the_core_scores_with(r: float) -> None:
    """Training and the shipped classifier see the same numbers, far out as well."""
    tangent = 3.0 * np.random.default_rng(0).normal(size=(7, 6))
    lifted = geometry.exp_0(torch.from_numpy(tangent), r)
    np.testing.assert_allclose(lifted, scoring.exp_0(tangent, r), rtol=1e-12)
    found = geometry.distance(lifted, lifted.flip(0), r)
    wanted = scoring.poincare_distance(lifted.numpy(), lifted.flip(0).numpy(), r)
    np.testing.assert_allclose(found, wanted, rtol=1e-7, atol=1e-4)


@pytest.mark.parametrize("r", CURVATURES)
def test_gradients_are_right(r: float) -> None:
    u = points(3, 4, r, seed=6).requires_grad_()
    v = points(4, 4, r, seed=7).requires_grad_()
    groups = torch.tensor([0, 1, 0])
    curvature = torch.tensor(r, dtype=torch.float64, requires_grad=True)
    check = torch.autograd.gradcheck
    assert check(geometry.distance, (u, v, curvature))
    assert check(lambda a, b, c: geometry.paired_distance(a, b[:3], c), (u, v, curvature))
    assert check(lambda a, c: geometry.midpoints(a, groups, 2, c), (u, curvature))
    assert check(geometry.exp_0, ((2.0 * u.detach()).requires_grad_(), curvature))


def test_gradients_are_finite_where_the_formulas_divide_by_zero() -> None:
    zero = torch.zeros(2, 3, requires_grad=True)
    lifted = geometry.exp_0(zero, 1.0)
    far = geometry.exp_0(torch.full((2, 3), 50.0), 1.0)
    total = (
        geometry.distance(lifted, lifted, 1.0).sum()
        + geometry.distance(lifted, far, 1.0).sum()
        + geometry.paired_distance(lifted, lifted.detach(), 1.0).sum()
        + geometry.midpoints(lifted, torch.tensor([0, 0]), 1, 1.0).sum()
        + geometry.norms(zero).sum()
    )
    total.backward()
    assert torch.isfinite(total)
    assert bool(zero.grad is not None and torch.isfinite(zero.grad).all())
    assert float(geometry.distance(far, far, 1.0).detach().max()) < 1e-6


def test_float32_in_float32_out_also_under_autocast() -> None:
    u, v = points(4, 3, 1.0).float(), points(4, 3, 1.0, seed=1).float()
    plain = geometry.distance(u, v, 1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = geometry.distance(u, v, 1.0)
    assert plain.dtype == torch.float32
    assert torch.equal(plain, cast)


def test_the_midpoint_is_nearer_to_the_origin_unless_it_is_alone() -> None:
    found = points(6, 8, 1.0, seed=8)
    found = 0.8 * found / found.norm(dim=1, keepdim=True)
    groups = torch.tensor([0, 0, 1, 2, 2, 2])
    middle = geometry.midpoints(found, groups, 3, 1.0)
    torch.testing.assert_close(middle[1], found[2])
    assert float(middle[0].norm()) < 0.8
    assert float(middle[2].norm()) < 0.8


@pytest.mark.parametrize("r", CURVATURES)
def test_the_feasible_margin_grows_without_bound_and_the_euclidean_one_does_not(r: float) -> None:
    """Theorem 1: m_r(eta) -> infinity as eta -> 1 / sqrt(r); inner products stop at 2 eta^2."""
    edge = 1.0 / r**0.5
    eta = edge * (1.0 - torch.logspace(-0.1, -12, 200, dtype=torch.float64))
    margin = geometry.feasible_margin(eta, r)
    euclid = geometry.euclidean_margin(eta)
    assert bool((margin.diff() > 0).all())
    # Ten times nearer to the boundary adds the same again, for ever: logarithmic divergence.
    steps = geometry.feasible_margin(
        edge * (1.0 - torch.logspace(-3, -12, 10, dtype=torch.float64)), r
    ).diff()
    torch.testing.assert_close(
        steps, torch.full_like(steps, 2 / r**0.5 * np.log(10)), rtol=1e-3, atol=0
    )
    assert float(euclid.max()) <= 2.0 / r
    # It is attained: antipodal points of that norm are this far apart, and no others further.
    for norm in (0.1, 0.5, 0.9):
        x = norm * edge * torch.eye(2, dtype=torch.float64)[:1]
        others = points(400, 2, r, seed=9)
        others = norm * edge * others / others.norm(dim=1, keepdim=True)
        widest = geometry.feasible_margin(torch.tensor(norm * edge, dtype=torch.float64), r)
        torch.testing.assert_close(geometry.distance(x, -x, r)[0, 0], widest)
        assert float(geometry.distance(x, others, r).max()) <= float(widest) + 1e-9


def test_the_published_table_of_margins() -> None:
    eta = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
    np.testing.assert_allclose(
        geometry.feasible_margin(eta, 1.0), [0.40, 1.24, 2.20, 3.47, 5.89, 10.6], atol=0.02
    )
    np.testing.assert_allclose(
        geometry.euclidean_margin(eta), [0.02, 0.18, 0.50, 0.98, 1.62, 1.96], atol=0.01
    )
