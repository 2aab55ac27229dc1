"""The service's answers as typed objects.

The same words as the service's published schema (a test holds the two together). Fields that a
newer service adds are ignored, so that an older client keeps working.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ModelRef(_Model):
    """Which model answered."""

    name: str
    digest: str


class HierarchyRef(_Model):
    """Which tree the answer walks."""

    name: str
    digest: str
    n_leaves: int
    n_nodes: int


class Stop(_Model):
    """Why the answer is as specific as it is, and no more."""

    theta: float
    source: str
    alpha: float | None = None
    rule: str
    reason: str
    calibration: str | None = None


class Node(_Model):
    """One node of the tree with its probability in [0, 1]."""

    id: str
    name: str
    synset: str | None = None
    depth: int
    probability: float


class PathNode(Node):
    """A node on the path from the root to a leaf."""

    conditional_probability: float


class Prediction(Node):
    """The node to stop at."""

    is_leaf: bool
    n_leaf_descendants: int
    specificity: float


class TreeAnswer(_Model):
    """The answer in one further tree of a forest."""

    hierarchy: HierarchyRef
    stop: Stop
    prediction: Prediction
    path: tuple[PathNode, ...]
    alternatives: tuple[Node, ...] = ()


class Answer(_Model):
    """One image, classified; see the service's ``answer.schema.json`` for every field."""

    image: str
    model: ModelRef
    hierarchy: HierarchyRef
    strategy: str
    stop: Stop
    prediction: Prediction
    path: tuple[PathNode, ...]
    flat_top1: Node
    top_k: tuple[Node, ...]
    alternatives: tuple[Node, ...] = ()
    similarity: float
    rejected: bool = False
    low_confidence: bool = False
    warnings: tuple[str, ...] = ()
    forest: tuple[TreeAnswer, ...] = ()


class ErrorBody(_Model):
    """What went wrong with one image."""

    code: str
    message: str


class AnswerError(_Model):
    """One image that could not be classified."""

    image: str
    error: ErrorBody
