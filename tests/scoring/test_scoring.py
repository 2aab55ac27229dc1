from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from robustzs import scoring


@dataclass(frozen=True)
class Geometry:
    kind: Literal["cosine", "poincare"] = "cosine"
    curvature: float | None = None
    image_scale: float | None = None
    text_scale: float | None = None


COSINE = Geometry()
BALL = Geometry("poincare", curvature=0.7, image_scale=0.4, text_scale=0.3)


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


def mobius_distance(u: Any, v: Any, r: float) -> float:
    """Distance by Möbius addition, straight from the papers, in float64."""
    a, b = -u, v
    dot, aa, bb = a @ b, a @ a, b @ b
    added = ((1 + 2 * r * dot + r * bb) * a + (1 - r * aa) * b) / (
        1 + 2 * r * dot + r * r * aa * bb
    )
    argument = min(np.sqrt(r) * np.linalg.norm(added), 1 - 1e-5)
    return float(2 / np.sqrt(r) * np.arctanh(argument))


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=20),
        elements=st.floats(-1e4, 1e4, width=32),
    )
)
def test_softmax_is_a_distribution_that_keeps_the_order(logits: Any) -> None:
    probs = scoring.softmax(logits)
    assert probs.dtype == np.float32
    assert (probs >= 0).all()
    np.testing.assert_allclose(probs.sum(axis=1, dtype=np.float64), 1.0, atol=1e-6)
    order = np.argsort(logits, axis=1, kind="stable")
    assert (np.diff(np.take_along_axis(probs, order, axis=1), axis=1) >= 0).all()


def test_softmax_against_its_definition_and_at_the_extremes() -> None:
    np.testing.assert_allclose(scoring.softmax(np.log([[1.0, 2.0, 5.0]])), [[0.125, 0.25, 0.625]])
    np.testing.assert_array_equal(scoring.softmax(np.float32([[1e38, 0, -1e38]])), [[1, 0, 0]])
    np.testing.assert_array_equal(scoring.softmax(np.full((2, 4), -3e38)), np.full((2, 4), 0.25))


def test_normalize_leaves_zero_vectors_and_survives_extremes() -> None:
    features = np.float32([[3, 4], [0, 0], [1e-30, 0], [1e30, 1e30]])
    half = np.sqrt(0.5)
    expected = [[0.6, 0.8], [0, 0], [1, 0], [half, half]]
    np.testing.assert_allclose(scoring.normalize(features), expected, rtol=1e-6)


def test_cosine_similarity_is_the_cosine() -> None:
    images, texts = normal(5, 64), normal(7, 1, 64, seed=1)
    got = scoring.similarities(images, scoring.class_features(texts, COSINE), COSINE)
    for b in range(5):
        for c in range(7):
            u, v = images[b], texts[c, 0]
            wanted = u @ v / np.linalg.norm(u) / np.linalg.norm(v)
            assert got[b, c] == pytest.approx(wanted, abs=1e-6)
    assert got.dtype == np.float32


def test_cosines_stay_within_one() -> None:
    images = np.repeat(normal(1, 512), 3, axis=0) * [[1e-3], [1.0], [1e3]]
    classes = scoring.class_features(np.stack([images[:1], -images[:1]]), COSINE)
    got = scoring.similarities(images, classes, COSINE)
    np.testing.assert_allclose(got, [[1, -1]] * 3, atol=1e-6)
    assert np.abs(got).max() <= 1.0


def test_templates_are_averaged_after_normalisation() -> None:
    texts = np.float32([[[100, 0], [0, 1]]])
    half = np.sqrt(0.5)
    np.testing.assert_allclose(scoring.class_features(texts, COSINE), [[half, half]], rtol=1e-6)


def test_templates_are_averaged_in_tangent_space() -> None:
    texts = normal(3, 4, 8)
    expected = scoring.exp_0(0.3 * texts.mean(axis=1), 0.7)
    np.testing.assert_allclose(scoring.class_features(texts, BALL), expected, rtol=1e-6)
    lifted_first = scoring.exp_0(0.3 * texts, 0.7).mean(axis=1)
    assert np.abs(expected - lifted_first).max() > 1e-3


@pytest.mark.parametrize("curvature", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("scale", [1e-6, 1e-2, 0.3, 1.0, 50.0])
def test_distance_equals_the_one_by_mobius_addition(curvature: float, scale: float) -> None:
    u = scoring.exp_0(scale * normal(6, 12), curvature)
    v = scoring.exp_0(scale * normal(9, 12, seed=1), curvature)
    got = scoring.poincare_distance(u, v, curvature)
    wanted = [[mobius_distance(a, b, curvature) for b in v] for a in u]
    np.testing.assert_allclose(got, wanted, rtol=2e-7, atol=1e-12)


def test_distance_has_its_known_values() -> None:
    r, x = 0.5, np.asarray([[0.3, -0.2, 0.4]])
    origin = np.zeros((1, 3))
    from_origin = 2 / np.sqrt(r) * np.arctanh(np.sqrt(r) * np.linalg.norm(x))
    assert scoring.poincare_distance(origin, x, r)[0, 0] == pytest.approx(from_origin, rel=1e-12)
    assert scoring.poincare_distance(x, x, r)[0, 0] == pytest.approx(0.0, abs=1e-7)
    antipodal = 4 / np.sqrt(r) * np.arctanh(np.sqrt(r) * np.linalg.norm(x))
    assert scoring.poincare_distance(x, -x, r)[0, 0] == pytest.approx(antipodal, rel=1e-12)


def test_distance_is_bounded_like_the_training_toolbox() -> None:
    edge = scoring.project(np.asarray([[1e9, 0.0]]), 1.0)
    assert np.linalg.norm(edge) == pytest.approx(1 - 1e-3)
    distance = scoring.poincare_distance(edge, -edge, 1.0)[0, 0]
    assert distance == pytest.approx(2 * np.arctanh(1 - 1e-5), rel=1e-9)


@given(
    hnp.arrays(np.float64, (3, 5), elements=st.floats(-1e6, 1e6)),
    st.floats(0.05, 10.0),
)
def test_lifted_points_are_inside_the_ball(tangent: Any, curvature: float) -> None:
    points = scoring.exp_0(tangent, curvature)
    norms = np.linalg.norm(points, axis=1) * np.sqrt(curvature)
    assert np.isfinite(points).all()
    assert (norms <= 1 - 1e-3 + 1e-12).all()


def test_exp_0_near_the_origin_and_at_it() -> None:
    np.testing.assert_array_equal(scoring.exp_0(np.zeros((2, 4)), 1.0), np.zeros((2, 4)))
    tiny = 1e-9 * normal(2, 4)
    np.testing.assert_allclose(scoring.exp_0(tiny, 1.0), tiny, rtol=1e-12)


def test_many_classes_in_the_ball_are_taken_in_chunks() -> None:
    texts = normal(scoring._CHUNK_ROWS + 3, 1, 4)
    classes = scoring.class_features(texts, BALL)
    got = scoring.similarities(normal(2, 4, seed=1), classes, BALL)
    alone = scoring.similarities(normal(2, 4, seed=1), classes[-5:], BALL)
    np.testing.assert_allclose(got[:, -5:], alone, rtol=1e-6)
    assert (got <= 0).all()


@pytest.mark.parametrize("geometry", [COSINE, BALL], ids=["cosine", "poincare"])
@pytest.mark.parametrize("n_classes", [3, 1000])
def test_a_row_does_not_depend_on_its_batch(geometry: Geometry, n_classes: int) -> None:
    images = normal(9, 512).astype(np.float32)
    classes = scoring.class_features(normal(n_classes, 2, 512, seed=1), geometry)
    together = scoring.softmax(scoring.similarities(images, classes, geometry))
    for row in range(9):
        alone = scoring.softmax(scoring.similarities(images[row : row + 1], classes, geometry))
        np.testing.assert_array_equal(alone[0], together[row])


def test_a_class_does_not_depend_on_the_others() -> None:
    images, texts = normal(2, 512), normal(900, 1, 512, seed=1)
    classes = scoring.class_features(texts, COSINE)
    together = scoring.similarities(images, classes, COSINE)
    for some in (slice(0, 1), slice(7, 40), slice(899, 900)):
        alone = scoring.similarities(images, classes[some], COSINE)
        np.testing.assert_array_equal(alone, together[:, some])


DIGEST = """
import hashlib
import numpy as np
from robustzs import scoring
from types import SimpleNamespace

values = np.random.default_rng(0)
images, classes = (values.standard_normal((n, 512), np.float32) / 30 for n in (2, 25_193))
digest = hashlib.sha256()
for geometry in (
    SimpleNamespace(kind="cosine"),
    SimpleNamespace(kind="poincare", curvature=0.7, image_scale=0.4, text_scale=0.3),
):
    digest.update(scoring.similarities(images, classes, geometry).tobytes())
print(digest.hexdigest())
"""


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    """A matrix product's do: of all nouns, with OpenBLAS, in their last bits."""
    digests = {
        subprocess.run(
            [sys.executable, "-c", DIGEST],
            env={**os.environ, "OPENBLAS_NUM_THREADS": n_threads, "OMP_NUM_THREADS": n_threads},
            capture_output=True,
            check=True,
        ).stdout
        for n_threads in ("1", "2", "4")
    }
    assert len(digests) == 1


@pytest.mark.parametrize("geometry", [COSINE, BALL], ids=["cosine", "poincare"])
def test_zero_features_are_scored(geometry: Geometry) -> None:
    classes = scoring.class_features(np.zeros((2, 3, 4)), geometry)
    got = scoring.similarities(np.zeros((1, 4), np.float32), classes, geometry)
    np.testing.assert_array_equal(got, [[0.0, 0.0]])


def test_temperature_divides_the_logits() -> None:
    similarity = np.float32([[0.5, -0.25]])
    np.testing.assert_allclose(
        scoring.scale_logits(similarity, logit_scale=100.0, temperature=4.0), [[12.5, -6.25]]
    )


def test_a_ball_without_a_curvature_is_refused() -> None:
    with pytest.raises(ValueError, match="needs curvature"):
        scoring.class_features(np.zeros((1, 1, 4)), Geometry("poincare"))
