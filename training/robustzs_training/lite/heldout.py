"""The published split: 200 of ImageNet's 1000 classes whose directions nothing may be built from.

``data/heldout_leaves.txt`` holds their wnids; it was drawn once by ``draw_heldout_leaves(0)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

import numpy as np
import numpy.typing as npt

from robustzs_training.lite.joint_space import Array, unit
from robustzs_training.lite.nouns import ImageNetClass

N_HELDOUT = 200


def draw_heldout_leaves(seed: int) -> npt.NDArray[np.int64]:
    """Draw the class indices of the split, sorted."""
    return np.sort(np.random.default_rng(seed).permutation(1000)[:N_HELDOUT])


def load_heldout_leaves(classes: Sequence[ImageNetClass]) -> npt.NDArray[np.int64]:
    """Class indices of the published list, sorted."""
    source = resources.files("robustzs_training.lite") / "data" / "heldout_leaves.txt"
    lines = source.read_text(encoding="utf-8").splitlines()
    listed = {line.split()[0] for line in lines if line and not line.startswith("#")}
    return np.array([i for i, row in enumerate(classes) if row.wnid in listed])


def retrieval(text_features: Array, class_directions: Array) -> dict[str, float]:
    """Find class directions by text and texts by class direction, among the given ones.

    Args:
        text_features: ``[n, 768]``; their last two coordinates (bias and norm) do not name a
            direction and are left out.
        class_directions: ``[n, 766]``, row ``i`` belonging to text ``i``.

    Returns:
        ``text_to_direction`` and ``direction_to_text``, top-1 fractions.
    """
    similarity = unit(text_features[:, :-2]) @ unit(class_directions).T
    own = np.arange(len(similarity))
    return {
        "text_to_direction": float((similarity.argmax(1) == own).mean()),
        "direction_to_text": float((similarity.argmax(0) == own).mean()),
    }
