"""From raw features to probabilities: the one place where features are compared.

Backends give raw features. Here they are normalised (cosine) or lifted into the Poincaré ball,
compared with the classes, scaled and turned into probabilities. Everything is NumPy; results are
float32, sums run in float64 where it is cheap.

A row's result depends neither on the other rows of its batch nor on the number of threads, bit for
bit: every similarity is a dot product of its own (``_dots``).

Source of the Poincaré formulas: hyptorch ``pmath.py`` of leymir/hyperbolic-image-embeddings, with
``r`` for its ``c``; the distance is used in its closed form.
"""

from __future__ import annotations

from typing import Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Real = TypeVar("Real", np.float32, np.float64)

_BALL_MARGIN = 1e-3  # points are kept at norm <= (1 - margin) / sqrt(r)
_ARTANH_MARGIN = 1e-5  # artanh's argument is kept <= 1 - margin, which bounds every distance
_TANH_LIMIT = 15.0
_CHUNK_ROWS = 4096  # classes converted to float64 at a time


class GeometryLike(Protocol):
    """What scoring needs of ``robustzs.bundle.manifest.Geometry``."""

    @property
    def kind(self) -> Literal["cosine", "poincare"]:
        """How features are compared."""
        ...

    @property
    def curvature(self) -> float | None:
        """``r`` of a ball of curvature ``-r``."""
        ...

    @property
    def image_scale(self) -> float | None:
        """Factor on raw image features before ``exp_0``."""
        ...

    @property
    def text_scale(self) -> float | None:
        """Factor on raw text features before ``exp_0``."""
        ...


def softmax(logits: FloatArray) -> Float32Array:
    """Softmax over the last axis, summed in float64.

    Args:
        logits: ``[..., C]``, C >= 1, finite.
    """
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    np.exp(shifted, out=shifted)
    shifted /= shifted.sum(axis=-1, keepdims=True)
    return shifted.astype(np.float32)


def normalize(features: FloatArray) -> Float32Array:
    """L2-normalise the last axis; a zero vector stays zero.

    Args:
        features: ``[..., D]``.
    """
    wide = features.astype(np.float64)
    norms = np.linalg.norm(wide, axis=-1, keepdims=True)
    return (wide / np.where(norms > 0.0, norms, 1.0)).astype(np.float32)


def project(points: FloatArray, curvature: float) -> Float64Array:
    """Pull points ``[..., D]`` back to norm ``(1 - 1e-3) / sqrt(r)`` where they are beyond it."""
    wide = points.astype(np.float64)
    limit = (1.0 - _BALL_MARGIN) / np.sqrt(curvature)
    norms = np.linalg.norm(wide, axis=-1, keepdims=True)
    return np.asarray(wide * np.minimum(1.0, limit / np.maximum(norms, 1e-300)))


def exp_0(tangent: FloatArray, curvature: float) -> Float64Array:
    """Lift tangent vectors at the origin ``[..., D]`` into the ball of curvature ``-r``.

    ``exp_0(w) = tanh(sqrt(r) |w|) w / (sqrt(r) |w|)``, then ``project``.
    """
    wide = tangent.astype(np.float64)
    length = np.sqrt(curvature) * np.linalg.norm(wide, axis=-1, keepdims=True)
    safe = np.maximum(length, 1e-15)
    return project(wide * (np.tanh(np.minimum(safe, _TANH_LIMIT)) / safe), curvature)


def poincare_distance(u: FloatArray, v: FloatArray, curvature: float) -> Float64Array:
    """Distances ``[B, C]`` between points of the ball ``u`` ``[B, D]`` and ``v`` ``[C, D]``.

    ``d = arcosh(1 + 2 r |u - v|^2 / ((1 - r |u|^2) (1 - r |v|^2))) / sqrt(r)``, which equals
    ``2 / sqrt(r) artanh(sqrt(r) |-u (+) v|)`` without an array of ``[B, C, D]``.
    """
    wide_u = u.astype(np.float64)
    square_u = np.einsum("bd,bd->b", wide_u, wide_u)
    result = np.empty((u.shape[0], v.shape[0]), np.float64)
    for start in range(0, v.shape[0], _CHUNK_ROWS):
        part = slice(start, start + _CHUNK_ROWS)
        wide_v = v[part].astype(np.float64)
        square_v = np.einsum("cd,cd->c", wide_v, wide_v)
        gap_v = 1.0 - curvature * square_v
        dots = _dots(wide_u, wide_v)
        for row in range(u.shape[0]):
            squared = square_u[row] + square_v - 2.0 * dots[row]
            gap = (1.0 - curvature * square_u[row]) * gap_v
            ratio = 2.0 * curvature * np.maximum(squared, 0.0) / gap
            # arcosh(1 + x) without losing small x
            result[row, part] = np.log1p(ratio + np.sqrt(ratio * (ratio + 2.0)))
    bound = 2.0 * np.arctanh(1.0 - _ARTANH_MARGIN)
    return np.asarray(np.minimum(result, bound) / np.sqrt(curvature))


def class_features(text_features: FloatArray, geometry: GeometryLike) -> Float32Array:
    """Join the templates of each class into the class's one vector.

    Cosine: normalise, average, normalise again. Poincaré: average the scaled features in the
    tangent space at the origin, then lift.

    Args:
        text_features: raw, ``[C, n_templates, D]``.
        geometry: how features are compared.

    Returns:
        ``[C, D]``: unit vectors (or zero), or points in the ball.
    """
    if geometry.kind == "cosine":
        return normalize(normalize(text_features).astype(np.float64).mean(axis=1))
    curvature, _, text_scale = _poincare(geometry)
    return exp_0(text_features.astype(np.float64).mean(axis=1) * text_scale, curvature).astype(
        np.float32
    )


def similarities(
    image_features: FloatArray, classes: FloatArray, geometry: GeometryLike
) -> Float32Array:
    """Similarity of every image to every class: cosine, or minus the hyperbolic distance.

    Args:
        image_features: raw, ``[B, D]``.
        classes: ``[C, D]`` from ``class_features``.
        geometry: how features are compared.

    Returns:
        ``[B, C]``; cosines are within [-1, 1].
    """
    if geometry.kind == "cosine":
        result = _dots(normalize(image_features), classes.astype(np.float32, copy=False))
        return np.clip(result, -1.0, 1.0, out=result)
    curvature, image_scale, _ = _poincare(geometry)
    points = exp_0(image_features.astype(np.float64) * image_scale, curvature)
    return (-poincare_distance(points, classes, curvature)).astype(np.float32)


def scale_logits(
    similarity: FloatArray, *, logit_scale: float, temperature: float = 1.0
) -> Float32Array:
    """Logits ``logit_scale * similarity / temperature``: the only use of a temperature.

    Args:
        similarity: ``[B, C]`` from ``similarities``.
        logit_scale: the factor itself, exponential already taken; > 0.
        temperature: > 0; above 1 flattens.
    """
    return (similarity.astype(np.float64) * (logit_scale / temperature)).astype(np.float32)


def _dots(rows: npt.NDArray[Real], columns: npt.NDArray[Real]) -> npt.NDArray[Real]:
    """Dot products ``[B, C]`` of ``rows`` ``[B, D]`` and ``columns`` ``[C, D]``.

    As stacks of vectors, for which NumPy calls BLAS' dot product once for each pair. As matrices it
    would be one call of ``gemv`` or ``gemm``: they sum in an order that depends on B and on the
    number of threads, and OpenBLAS wakes its threads for it even where there is little to do (one
    row, 1000 classes: 4 ms and more on a busy machine, 0.05 ms this way; alone with 25,000 classes
    this way costs no more CPU either).
    """
    stacked: npt.NDArray[Real] = np.matmul(rows[:, None, None, :], columns[None, :, :, None])
    return stacked[:, :, 0, 0]


def _poincare(geometry: GeometryLike) -> tuple[float, float, float]:
    """Curvature, image scale and text scale of a geometry that has them."""
    values = (geometry.curvature, geometry.image_scale, geometry.text_scale)
    curvature, image_scale, text_scale = values
    if curvature is None or image_scale is None or text_scale is None:
        raise ValueError(f"poincare geometry needs curvature and both scales, got {values}")
    return curvature, image_scale, text_scale
