"""The Poincaré ball: lift, distance, midpoints and margins, differentiable.

Formulas are those of ``robustzs.scoring`` (source: hyptorch ``pmath.py`` of
``leymir/hyperbolic-image-embeddings``, with ``r`` for its ``c``). The ball of curvature ``-r``
holds the points with ``r |x|^2 < 1``. Everything is computed in float64, which autocast leaves
alone, because ``1 - r |x|^2`` loses all its digits in half precision near the boundary; results
are float32, or float64 for float64 inputs.
"""

from __future__ import annotations

import math

import torch

BALL_MARGIN = 1e-3  # points are kept at norm <= (1 - margin) / sqrt(r)
ARTANH_MARGIN = 1e-5  # artanh's argument is kept <= 1 - margin, which bounds every distance
TANH_LIMIT = 15.0
_TINY = 1e-15
_SQUARE_FLOOR = 1e-24  # under a square root, so that its gradient stays finite at zero

Curvature = float | torch.Tensor


def _root(curvature: Curvature) -> torch.Tensor:
    return torch.as_tensor(curvature, dtype=torch.float64).sqrt()


def _narrow(result: torch.Tensor, *inputs: torch.Tensor) -> torch.Tensor:
    wide = any(each.dtype == torch.float64 for each in inputs)
    return result if wide else result.float()


def norms(points: torch.Tensor) -> torch.Tensor:
    """L2 norms ``[...]`` of ``points`` ``[..., D]``, with a finite gradient at zero."""
    wide = points.double()
    return _narrow((wide.square().sum(-1) + _SQUARE_FLOOR).sqrt(), points)


def project(points: torch.Tensor, curvature: Curvature) -> torch.Tensor:
    """Pull points ``[..., D]`` back to norm ``(1 - 1e-3) / sqrt(r)`` where they are beyond it."""
    wide = points.double()
    limit = (1.0 - BALL_MARGIN) / _root(curvature).to(wide.device)
    length = norms(wide)[..., None]
    return _narrow(torch.where(length > limit, wide * (limit / length), wide), points)


def exp_0(tangent: torch.Tensor, curvature: Curvature) -> torch.Tensor:
    """Lift tangent vectors at the origin ``[..., D]`` into the ball.

    ``exp_0(w) = tanh(sqrt(r) |w|) w / (sqrt(r) |w|)``, then :func:`project`.
    """
    wide = tangent.double()
    length = (_root(curvature).to(wide.device) * norms(wide)[..., None]).clamp_min(_TINY)
    lifted = wide * (torch.tanh(length.clamp_max(TANH_LIMIT)) / length)
    return _narrow(project(lifted, curvature), tangent)


def distance(u: torch.Tensor, v: torch.Tensor, curvature: Curvature) -> torch.Tensor:
    """Distances ``[B, C]`` between every point of ``u`` ``[B, D]`` and of ``v`` ``[C, D]``.

    ``d = arcosh(1 + 2 r |u - v|^2 / ((1 - r |u|^2) (1 - r |v|^2))) / sqrt(r)``, which equals
    ``2 / sqrt(r) artanh(sqrt(r) |-u (+) v|)`` without an array of ``[B, C, D]``.
    """
    wide_u, wide_v = u.double(), v.double()
    square_u, square_v = wide_u.square().sum(-1), wide_v.square().sum(-1)
    squared = square_u[:, None] + square_v[None] - 2.0 * wide_u @ wide_v.T
    return _narrow(_from_squares(squared, square_u[:, None], square_v[None], curvature), u, v)


def paired_distance(u: torch.Tensor, v: torch.Tensor, curvature: Curvature) -> torch.Tensor:
    """Distances ``[...]`` between ``u`` and ``v``, both ``[..., D]``, row by row."""
    wide_u, wide_v = u.double(), v.double()
    squared = (wide_u - wide_v).square().sum(-1)
    squares = wide_u.square().sum(-1), wide_v.square().sum(-1)
    return _narrow(_from_squares(squared, *squares, curvature), u, v)


def _from_squares(
    squared: torch.Tensor, square_u: torch.Tensor, square_v: torch.Tensor, curvature: Curvature
) -> torch.Tensor:
    r = torch.as_tensor(curvature, dtype=torch.float64, device=squared.device)
    gap = (1.0 - r * square_u) * (1.0 - r * square_v)
    ratio = 2.0 * r * squared.clamp_min(_SQUARE_FLOOR) / gap
    arcosh = torch.log1p(ratio + torch.sqrt(ratio * (ratio + 2.0)))  # of 1 + ratio
    return arcosh.clamp_max(2.0 * math.atanh(1.0 - ARTANH_MARGIN)) / r.sqrt()


def midpoints(
    points: torch.Tensor, groups: torch.Tensor, n_groups: int, curvature: Curvature
) -> torch.Tensor:
    """Einstein midpoint of each group of points: ``[n_groups, D]``.

    In Klein coordinates ``k = 2 x / (1 + r |x|^2)`` the midpoint is the mean with weights
    ``gamma = 1 / sqrt(1 - r |k|^2) = (1 + r |x|^2) / (1 - r |x|^2)``; the result is carried back
    by ``x = k / (1 + sqrt(1 - r |k|^2))``. A group of one is its point; a group whose points differ
    has a midpoint nearer to the origin than the furthest of them.

    Args:
        points: ``[N, D]`` in the ball.
        groups: int64 ``[N]`` in ``0 .. n_groups - 1``; every group has a point.
        n_groups: How many groups there are.
        curvature: ``r``.
    """
    wide = points.double()
    r = torch.as_tensor(curvature, dtype=torch.float64, device=wide.device)
    square = r * wide.square().sum(-1, keepdim=True)
    gamma = (1.0 + square) / (1.0 - square)
    klein = 2.0 * wide / (1.0 + square)
    zeros = wide.new_zeros(n_groups, wide.shape[1])
    weighted = zeros.index_add(0, groups, gamma * klein)
    total = wide.new_zeros(n_groups, 1).index_add(0, groups, gamma)
    mean = weighted / total
    rest = (1.0 - r * mean.square().sum(-1, keepdim=True)).clamp_min(_SQUARE_FLOOR)
    return _narrow(mean / (1.0 + rest.sqrt()), points)


def feasible_margin(
    eta: torch.Tensor, curvature: Curvature, logit_scale: float = 1.0
) -> torch.Tensor:
    """The largest logit margin that points of norm ``eta`` allow in the ball.

    ``m_r(eta) = logit_scale (4 / sqrt(r)) artanh(sqrt(r) eta)``: the distance of antipodal points,
    which grows without bound as ``eta -> 1 / sqrt(r)``. Reconstruction of Theorem 1 of
    "Hierarchically Robust Zero-shot Vision-language Models"; see docs/objectives.md.
    """
    root = _root(curvature).to(eta.device)
    return _narrow(logit_scale * 4.0 / root * torch.atanh(root * eta.double()), eta)


def euclidean_margin(eta: torch.Tensor, logit_scale: float = 1.0) -> torch.Tensor:
    """The same for inner products of vectors of norm ``eta``: ``2 logit_scale eta^2``."""
    return 2.0 * logit_scale * eta.square()
