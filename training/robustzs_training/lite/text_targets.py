r"""Where a word belongs in the joint space: targets for all visible nouns of WordNet.

A class of ImageNet has its direction. A node above such classes gets the mean of the directions
below it. Every other noun gets the prediction of a Gaussian process whose kernel compares two
nouns by what is written about them and by their place in WordNet:

.. math::
    k(a, b) = \exp(-\lVert x_a - x_b \rVert^2) + 0.2\, h_a \cdot h_b

``x``: MiniLM embeddings of the name and of "name: gloss", each centred and normalised, stacked and
divided by the square root of 2. ``h``: one coordinate for each common hypernym, weighted by
:math:`\sqrt{\log(N / n)}` where ``n`` of the ``N`` reference classes lie below it, normalised.
On 200 held-out classes this finds the right direction for 58 to 60% of the classes, against 38 to
40% of a ridge map from the name alone (means over five splits); the text tower then learns it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from robustzs_training.lite.joint_space import Array, JointSpace, unit
from robustzs_training.lite.nouns import ImageNetClass, ancestors_or_self

_TREE_SHARE = 0.2
_NOISE = 0.1


@dataclass(frozen=True, kw_only=True)
class NounEmbeddings:
    """Frozen MiniLM embeddings of the visible nouns.

    Attributes:
        wnids: The nouns, in row order.
        names: ``[n, 384]`` of the name.
        glosses: ``[n, 384]`` of "name: gloss".
    """

    wnids: Sequence[str]
    names: npt.NDArray[np.float32]
    glosses: npt.NDArray[np.float32]


def _text_coordinates(embeddings: NounEmbeddings, reference_rows: npt.NDArray[np.int64]) -> Array:
    parts = []
    for rows in (embeddings.names, embeddings.glosses):
        scaled = unit(rows.astype(np.float64))
        parts.append(unit(scaled - scaled[reference_rows].mean(0)))
    return np.concatenate(parts, axis=1) / np.sqrt(2.0)


def _tree_coordinates(wnids: Sequence[str], reference: Sequence[str]) -> Array:
    counts = Counter(a for wnid in reference for a in ancestors_or_self(wnid))
    shared = sorted(a for a, n in counts.items() if 1 < n < len(reference))
    column = {a: i for i, a in enumerate(shared)}
    out = np.zeros((len(wnids), len(shared)))
    for row, wnid in enumerate(wnids):
        for ancestor in sorted(ancestors_or_self(wnid)):
            if ancestor in column:
                weight = np.log(len(reference) / counts[ancestor])
                out[row, column[ancestor]] = np.sqrt(weight)
    return unit(out)


def _squared_distances(a: Array, b: Array) -> Array:
    return np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2.0 * a @ b.T, 0.0)


def noun_targets(
    space: JointSpace,
    embeddings: NounEmbeddings,
    classes: Sequence[ImageNetClass],
    reference: npt.NDArray[np.int64],
) -> Array:
    """Give every visible noun its unit text vector ``[n, 768]``.

    Args:
        space: The joint space.
        embeddings: MiniLM embeddings of the nouns; they must contain the reference classes.
        classes: The 1000 classes, in class order.
        reference: Indices of the classes whose directions may be used; nothing is taken from the
            others, which are predicted like any noun.
    """
    row_of = {wnid: row for row, wnid in enumerate(embeddings.wnids)}
    known = [classes[i].wnid for i in reference]
    known_rows = np.array([row_of[wnid] for wnid in known])
    text = _text_coordinates(embeddings, known_rows)
    tree = _tree_coordinates(embeddings.wnids, known)
    kernel = np.exp(-_squared_distances(text, text[known_rows]))
    kernel += _TREE_SHARE * tree @ tree[known_rows].T

    directions = space.directions[reference]
    mean = directions.mean(0)
    gram = kernel[known_rows] + _NOISE * np.eye(len(known_rows))
    predicted = kernel @ np.linalg.solve(gram, directions - mean)

    below: dict[str, list[int]] = {}
    for index, wnid in enumerate(known):
        for ancestor in sorted(ancestors_or_self(wnid) - {wnid}):
            below.setdefault(ancestor, []).append(index)
    for ancestor, members in below.items():
        predicted[row_of[ancestor]] = directions[members].mean(0)

    targets = space.text_vectors(predicted)
    targets[known_rows] = space.targets[reference]
    return targets
