"""What a classification says: one schema for the CLI, the service and the SDK.

The JSON Schema in ``robustzs/schemas/answer.schema.json`` is generated from these models
(``python -m robustzs.schemas``); a test keeps the two equal.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

Strategy = Literal["marginal", "topdown", "hyponyms", "level"]
StopRule = Literal["greedy", "climb"]
ThetaSource = Literal["user", "calibration", "bundle", "default"]
StopReason = Literal["leaf", "theta", "level", "max-depth", "rejected"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelRef(_Frozen):
    """Which model answered."""

    name: str
    digest: Digest = Field(description="sha256 of the bundle's record")


class HierarchyRef(_Frozen):
    """Which tree the answer walks."""

    name: str
    digest: Digest
    n_leaves: int = Field(ge=1)
    n_nodes: int = Field(ge=1)


class Stop(_Frozen):
    """Why the answer is as specific as it is, and no more."""

    theta: Probability = Field(
        description="the walk goes on while a node's probability is above it"
    )
    source: ThetaSource
    alpha: float | None = Field(None, gt=0.0, lt=1.0, description="1 - target accuracy, calibrated")
    rule: StopRule
    reason: StopReason
    calibration: Digest | None = None


class Node(_Frozen):
    """One node of the tree with its probability."""

    id: str
    name: str
    synset: str | None
    depth: int = Field(ge=0)
    probability: Probability


class PathNode(Node):
    """A node on the path from the root to a leaf."""

    conditional_probability: Probability = Field(description="given its parent")


class Prediction(Node):
    """The node to stop at."""

    is_leaf: bool
    n_leaf_descendants: int = Field(ge=1)
    specificity: Probability = Field(description="1 - log(n_leaf_descendants)/log(n_leaves)")


class TreeAnswer(_Frozen):
    """The answer in one further tree of a forest."""

    hierarchy: HierarchyRef
    stop: Stop
    prediction: Prediction
    path: tuple[PathNode, ...]
    alternatives: tuple[Node, ...] = ()


class Answer(_Frozen):
    """One image, classified.

    ``path`` goes from the root to a leaf; ``prediction`` is the node on it to stop at;
    ``flat_top1`` is the most probable leaf, which need not lie on the path; ``alternatives`` are
    the other children of ``prediction``.
    """

    image: str = Field(description="file name or other reference given by the caller")
    model: ModelRef
    hierarchy: HierarchyRef
    strategy: Strategy = "marginal"
    stop: Stop
    prediction: Prediction
    path: tuple[PathNode, ...]
    flat_top1: Node
    top_k: tuple[Node, ...]
    alternatives: tuple[Node, ...] = ()
    similarity: float = Field(
        description="largest similarity of the image to a label: cosine, or minus the hyperbolic "
        "distance; what rejection looks at"
    )
    rejected: bool = Field(
        False, description="none of these: the similarity is below the threshold"
    )
    low_confidence: bool = False
    warnings: tuple[str, ...] = ()
    forest: tuple[TreeAnswer, ...] = Field((), description="the further trees of a forest")


class ErrorBody(_Frozen):
    """What went wrong with one image."""

    code: str
    message: str


class AnswerError(_Frozen):
    """One image that could not be classified."""

    image: str
    error: ErrorBody
