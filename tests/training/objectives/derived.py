"""Every loss again, in float64 NumPy, written from the equations and not from the code."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Array = npt.NDArray[np.float64]


def array(tensor: torch.Tensor) -> Array:
    return tensor.detach().double().numpy()


def log_softmax(row: Array) -> Array:
    shifted = row - row.max()
    return shifted - np.log(np.exp(shifted).sum())


def cosine(a: Array, b: Array) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def logits(images: Array, classes: Array, scale: float) -> Array:
    return np.array([[scale * cosine(z, t) for t in classes] for z in images])


def cross_entropy(rows: Array, targets: Sequence[int]) -> float:
    return float(np.mean([-log_softmax(row)[y] for row, y in zip(rows, targets, strict=True)]))


def tecoa(images: Array, classes: Array, labels: Sequence[int], scale: float) -> float:
    return cross_entropy(logits(images, classes, scale), labels)


def fare(images: Array, reference: Array) -> float:
    return float(np.mean([np.sum((z - z0) ** 2) for z, z0 in zip(images, reference, strict=True)]))


def sim_clip(images: Array, reference: Array) -> float:
    return -float(np.mean([cosine(z, z0) for z, z0 in zip(images, reference, strict=True)]))


def kl(p_logits: Array, q_logits: Array, reduction: str) -> float:
    total = 0.0
    for p_row, q_row in zip(p_logits, q_logits, strict=True):
        p, q = np.exp(log_softmax(p_row)), np.exp(log_softmax(q_row))
        total += float(np.sum(p * np.log(p / q)))
    return total if reduction == "sum" else total / len(p_logits)


def agft(images: Array, reference: Array, classes: Array, scale: float, gamma: float) -> float:
    found = []
    targets = logits(reference, classes, gamma * scale)
    for row, target in zip(logits(images, classes, scale), targets, strict=True):
        found.append(-np.sum(np.exp(log_softmax(target)) * log_softmax(row)))
    return float(np.mean(found))


def fare_kl(images: Array, reference: Array, classes: Array, scale: float, weight: float) -> float:
    targets, predictions = logits(reference, classes, scale), logits(images, classes, scale)
    return fare(images, reference) + weight * kl(targets, predictions, "batchmean")


def qt_aft(images: Array, reference: Array, captions: Array, scale: float, weight: float) -> float:
    own = range(len(images))
    return fare(images, reference) + weight * tecoa(images, captions, list(own), scale)


# ---- attention maps --------------------------------------------------------------------------


def bilinear(grid: Array, height: int, width: int) -> Array:
    """Half-pixel centres, edges repeated."""
    rows, columns = grid.shape
    result = np.empty((height, width))
    for i in range(height):
        for j in range(width):
            y = max((i + 0.5) * rows / height - 0.5, 0.0)
            x = max((j + 0.5) * columns / width - 0.5, 0.0)
            y0, x0 = min(int(y), rows - 1), min(int(x), columns - 1)
            y1, x1 = min(y0 + 1, rows - 1), min(x0 + 1, columns - 1)
            fy, fx = y - y0, x - x0
            top = grid[y0, x0] * (1 - fx) + grid[y0, x1] * fx
            bottom = grid[y1, x0] * (1 - fx) + grid[y1, x1] * fx
            result[i, j] = top * (1 - fy) + bottom * fy
    return result


def attention_map(
    patches: Array, pooled: Array, text: Array, grid: tuple[int, int], side: int, axis: str
) -> Array:
    """One image: patches [P, D], pooled [D], unit text [D]."""
    tokens = np.vstack([pooled, patches])
    if axis == "tokens":
        tokens = tokens / np.sqrt((tokens**2).sum(axis=0, keepdims=True))
    else:
        tokens = tokens / np.sqrt((tokens**2).sum(axis=1, keepdims=True))
    similarity = tokens[1:] @ text
    scaled = (similarity - similarity.min()) / (similarity.max() - similarity.min())
    return bilinear(scaled.reshape(grid), side, side).ravel()


# ---- the Poincaré ball and trees -------------------------------------------------------------


def lift(w: Array, r: float) -> Array:
    n = np.linalg.norm(w)
    return np.tanh(np.sqrt(r) * n) * w / (np.sqrt(r) * n)


def mobius_add(u: Array, v: Array, r: float) -> Array:
    uv, uu, vv = u @ v, u @ u, v @ v
    return ((1 + 2 * r * uv + r * vv) * u + (1 - r * uu) * v) / (1 + 2 * r * uv + r * r * uu * vv)


def distance(u: Array, v: Array, r: float) -> float:
    return float(2 / np.sqrt(r) * np.arctanh(np.sqrt(r) * np.linalg.norm(mobius_add(-u, v, r))))


def einstein_midpoint(points: Sequence[Array], r: float) -> Array:
    klein = [2 * x / (1 + r * (x @ x)) for x in points]
    gamma = [1 / np.sqrt(1 - r * (k @ k)) for k in klein]
    mean = sum(g * k for g, k in zip(gamma, klein, strict=True)) / sum(gamma)
    return np.asarray(mean / (1 + np.sqrt(1 - r * (mean @ mean))))


def path(parents: dict[str, str | None], leaf: str) -> list[str]:
    """Leaf to root, without nodes that have a single child."""
    children: dict[str, int] = {}
    for parent in parents.values():
        if parent is not None:
            children[parent] = children.get(parent, 0) + 1
    found, node = [leaf], parents[leaf]
    while node is not None:
        if children[node] > 1:
            found.append(node)
        node = parents[node]
    return found


def chain(parents: dict[str, str | None], leaf: str, n_levels: int) -> list[str]:
    """The node of ``leaf`` at each level, by relative depth."""
    nodes = path(parents, leaf)
    steps = [level * (len(nodes) - 1) / n_levels for level in range(n_levels + 1)]
    return [nodes[int(np.floor(step + 0.5))] for step in steps]


def related(parents: dict[str, str | None], a: str, b: str) -> bool:
    """One lies above the other, or they are the same."""
    return _above(parents, a, b) or _above(parents, b, a)


def _above(parents: dict[str, str | None], top: str, node: str | None) -> bool:
    while node is not None:
        if node == top:
            return True
        node = parents[node]
    return False


# Points at each level: (class, set of images below it, point)
Points = list[list[tuple[str, frozenset[int], Array]]]


def level_points(
    chains: dict[str, list[str]], names: Sequence[str], phi: Sequence[Array], r: float
) -> Points:
    """Images at level 0, and above them the midpoints of what is below each class."""
    points: Points = [[(name, frozenset([i]), phi[i]) for i, name in enumerate(names)]]
    for level in range(1, len(chains[names[0]])):
        found = []
        for node in sorted({chains[name][level] for name in names}):
            images = frozenset(i for i, name in enumerate(names) if chains[name][level] == node)
            below = [point for _, members, point in points[-1] if members & images]
            found.append((node, images, einstein_midpoint(below, r)))
        points.append(found)
    return points


def level_losses(
    parents: dict[str, str | None],
    chains: dict[str, list[str]],
    points: Points,
    psi: dict[str, Array],
    r: float,
    scale: float,
) -> list[float]:
    """CE^l of Eq. 9: the mean over a level's points."""
    classes = [sorted({chain[level] for chain in chains.values()}) for level in range(len(points))]
    ces = []
    for level, found in enumerate(points):
        losses = []
        for node, _, point in found:
            beside = []
            if level > 0:
                beside += classes[level - 1]
            if level < len(points) - 1:
                beside += classes[level + 1]
            negatives = {
                other for other in classes[level] + beside if not related(parents, node, other)
            }
            own = -scale * distance(point, psi[node], r)
            others = [-scale * distance(point, psi[other], r) for other in sorted(negatives)]
            losses.append(-log_softmax(np.array([own, *others]))[0])
        ces.append(float(np.mean(losses)))
    return ces


def label_gap_of(
    chains: dict[str, list[str]], leaves: Sequence[str], psi: dict[str, Array], gap: float
) -> float:
    """L_gap^Label: a parent's text lies less deep than its child's."""
    norm = np.linalg.norm
    total = 0.0
    for leaf in leaves:
        for child, parent in pairwise(chains[leaf]):
            if child != parent:
                total += max(0.0, norm(psi[parent]) - norm(psi[child]) + gap)
    return total / len(leaves)


def level_gap_of(points: Points, gap: float) -> float:
    """L_gap^Intra between levels: a group lies less deep than what it is the midpoint of."""
    norm = np.linalg.norm
    total = 0.0
    for lower, upper in pairwise(points):
        hinges = [
            max(0.0, norm(above) - norm(below) + gap)
            for _, images, above in upper
            for _, members, below in lower
            if members & images
        ]
        total += float(np.mean(hinges))
    return total


def tree_terms(
    parents: dict[str, str | None],
    leaves: Sequence[str],
    labels: Sequence[int],
    phi: Sequence[Array],
    psi: dict[str, Array],
    *,
    n_levels: int,
    r: float,
    scale: float,
    gap: float,
    radius: float,
) -> dict[str, Any]:
    """Eqs. 8-14 of one tree, for images ``phi`` of leaves ``labels`` and texts ``psi``."""
    chains = {leaf: chain(parents, leaf, n_levels) for leaf in leaves}
    names = [leaves[label] for label in labels]
    points = level_points(chains, names, phi, r)
    ces = level_losses(parents, chains, points, psi, r, scale)
    norm = np.linalg.norm
    pairs = list(zip(phi, names, strict=True))
    return {
        "ces": ces,
        "contrast": sum((1 - level / (n_levels + 1)) * ce for level, ce in enumerate(ces)),
        "vicinity": float(np.mean([max(0.0, distance(p, psi[n], r) - radius) for p, n in pairs])),
        "gap_label": label_gap_of(chains, leaves, psi, gap),
        "gap_intra": float(np.mean([max(0.0, norm(psi[n]) - norm(p) + gap) for p, n in pairs])),
        "gap_intra_levels": level_gap_of(points, gap),
    }
