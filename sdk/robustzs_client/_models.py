"""The service's answers as typed objects.

The same words as the service's published schemas (a test holds the two together). Fields that a
newer service adds are ignored, so that an older client keeps working. Where a service withholds its
scores, they are ``nan`` here.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

Score = Annotated[float, BeforeValidator(lambda value: float("nan") if value is None else value)]
"""A probability or similarity; ``nan`` where the service withholds it, null in JSON."""


class _Model(BaseModel):
    # Validators are built when they are first needed: importing the package stays cheap.
    model_config = ConfigDict(
        frozen=True, extra="ignore", defer_build=True, protected_namespaces=()
    )


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
    probability: Score


class PathNode(Node):
    """A node on the path from the root to a leaf."""

    conditional_probability: Score


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
    strategy: str = "marginal"
    stop: Stop
    prediction: Prediction
    path: tuple[PathNode, ...]
    flat_top1: Node
    top_k: tuple[Node, ...]
    alternatives: tuple[Node, ...] = ()
    similarity: Score
    rejected: bool = False
    low_confidence: bool = False
    warnings: tuple[str, ...] = ()
    forest: tuple[TreeAnswer, ...] = ()


class ErrorBody(_Model):
    """What went wrong with one image."""

    code: str
    message: str


class AnswerError(_Model):
    """One image that could not be classified, or embedded."""

    image: str
    error: ErrorBody


class Embedding(_Model):
    """Raw features of one image or text, of ``dim`` numbers: scoring normalises or lifts them.

    Attributes:
        name: Path or other name of the image; the text itself.
        model: Which model made them.
        embedding: The numbers.
    """

    name: str
    model: ModelRef
    embedding: tuple[float, ...]


class ModelDetails(_Model):
    """A model of the service, and what runs it."""

    name: str
    aliases: tuple[str, ...] = ()
    digest: str
    provider: str
    precision: str | None = None
    text_precision: str | None = None
    image_size: tuple[int, int] | None = None
    embed_dim: int | None = None
    card: dict[str, Any] | None = None


class StoredInfo(_Model):
    """Something that the service keeps under an id.

    Attributes:
        etag: Changes with the content; give it as ``if_match`` to change only what you know.
    """

    id: str
    etag: str
    bytes: int
    created_at: datetime
    modified_at: datetime


class StoredDocument(_Model):
    """A label set or hierarchy as the service keeps it, and the tag of what it is."""

    id: str
    etag: str
    document: Any


class Readiness(_Model):
    """Whether the service takes work.

    Attributes:
        ready: Whether it does.
        status: HTTP status of the answer.
        detail: What it said.
    """

    ready: bool
    status: int
    detail: dict[str, Any] = {}
