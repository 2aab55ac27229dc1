r"""The joint space: where a cosine reproduces the logits of the ImageNet head.

The head scores a pooled feature ``f`` (1280) as :math:`\ell_i = w_i \cdot f + b_i`. A cosine has
unit text vectors and no bias, so the head is rewritten. With classes centred
(:math:`w'_i = w_i - \bar w`, :math:`b'_i = b_i - \bar b`), ``m`` the mean and ``C`` the
(shrunk) covariance of ``f`` over pictures, and :math:`\gamma` the degree of whitening:

.. math::
    z(f) &= [\,P (f - m),\; c,\; 0\,] \\
    t_i &= [\,P^{-T} w'_i,\; \beta_i / c,\; \sqrt{M^2 - \lVert\cdot\rVert^2}\,] / M,
    \qquad \beta_i = w'_i \cdot m + b'_i

so :math:`z \cdot t_i \propto \ell_i - \bar\ell` with every :math:`\lVert t_i \rVert = 1`: the last
coordinate, which every image leaves at 0, takes up the differences of norm (the reduction of
maximum inner product to cosine of Bachrach et al., RecSys 2014). ``P`` maps onto the leading
right singular vectors of :math:`W' C^{\gamma/2}`, that is, the directions that matter for real
pictures. It needs no label of any picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

EMBED_DIM = 768
WHITENING = 0.3
SHRINKAGE = 0.1
_CONSTANT_SHARE = 0.35  # spread of the bias coordinate, in units of the text vectors' mean norm


@dataclass(frozen=True, kw_only=True)
class JointSpace:
    """The projection of the image tower and the text vectors of the 1000 classes.

    Attributes:
        weight: ``[768, 1280]`` projection of the pooled feature.
        bias: ``[768]`` its bias.
        targets: ``[1000, 768]`` unit text vectors, in class order.
        direction_norm: Mean norm of the first 766 coordinates of the reference classes' targets.
    """

    weight: Array
    bias: Array
    targets: Array
    direction_norm: float

    @property
    def directions(self) -> Array:
        """``[1000, 766]`` unit class directions: no bias coordinate, no norm coordinate."""
        return unit(self.targets[:, :-2])

    def text_vectors(self, directions: Array) -> Array:
        """Complete directions ``[n, 766]`` of other concepts to unit text vectors ``[n, 768]``.

        They get the mean norm and the mean bias (0), so no concept starts with an advantage.
        """
        out = np.zeros((len(directions), self.targets.shape[1]))
        out[:, :-2] = unit(directions) * self.direction_norm
        out[:, -1] = np.sqrt(1.0 - self.direction_norm**2)
        return out


def unit(rows: Array) -> Array:
    """Scale every row to length 1."""
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)


def build_joint_space(
    head_weight: Array,
    head_bias: Array,
    features: Array,
    reference: npt.NDArray[np.int64],
    *,
    embed_dim: int = EMBED_DIM,
) -> JointSpace:
    """Rewrite the head for cosine similarity.

    Args:
        head_weight: ``[1000, 1280]``.
        head_bias: ``[1000]``.
        features: ``[n, 1280]`` pooled features of unlabelled pictures.
        reference: Classes that may shape the space; the others are only mapped into it.
        embed_dim: Coordinates, two of them for bias and norm.

    Raises:
        ValueError: the reference classes span fewer directions than asked for.
    """
    n_directions = embed_dim - 2
    mean = features.mean(0)
    centred = features - mean
    covariance = centred.T @ centred / len(centred)
    ridge = SHRINKAGE * np.trace(covariance) / len(covariance)
    covariance = (1 - SHRINKAGE) * covariance + ridge * np.eye(len(covariance))
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * values ** (WHITENING / 2)) @ vectors.T
    inverse_root = (vectors * values ** (-WHITENING / 2)) @ vectors.T

    weight = head_weight - head_weight[reference].mean(0)
    beta = weight @ mean + (head_bias - head_bias[reference].mean())
    beta -= beta[reference].mean()
    basis = np.linalg.svd(weight[reference] @ root, full_matrices=False)[2][:n_directions]
    if len(basis) < n_directions:  # fewer reference classes than coordinates
        raise ValueError(f"{len(reference)} reference classes span {len(basis)} < {n_directions}")
    projection = basis @ inverse_root
    scale = float((centred @ projection.T).std())
    directions, projection = (weight @ root @ basis.T) * scale, projection / scale

    length = float(np.sqrt((directions[reference] ** 2).sum(1).mean()))
    beta_scale = _CONSTANT_SHARE * length / float(beta[reference].std())
    raw = np.concatenate([directions, beta[:, None] * beta_scale], axis=1)
    norms = np.linalg.norm(raw, axis=1)
    largest = float(norms[reference].max()) * 1.0001
    pad = np.sqrt(np.maximum(largest**2 - norms**2, 0.0))
    targets = unit(np.concatenate([raw, pad[:, None]], axis=1))

    out_weight = np.zeros((embed_dim, head_weight.shape[1]))
    out_weight[:n_directions] = projection
    out_bias = np.zeros(embed_dim)
    out_bias[:n_directions] = -projection @ mean
    out_bias[n_directions] = 1.0 / beta_scale
    return JointSpace(
        weight=out_weight,
        bias=out_bias,
        targets=targets,
        direction_norm=float(np.linalg.norm(targets[reference, :-2], axis=1).mean()),
    )
