"""What the service answers, as pydantic models; ``docs/openapi.json`` is made from them.

A result is the Answer of core (``robustzs/schemas/answer.schema.json``) with two fields more.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from robustzs.answer import Answer, AnswerError, Digest, ErrorBody, ModelRef
from robustzs.hierarchy.document import HierarchyDocument

Index = Annotated[int, Field(ge=0, description="place in the request")]
RequestId = Annotated[
    str, Field(description="as in the header X-Request-ID and in the service's log")
]
Milliseconds = Annotated[float, Field(ge=0.0)]
Etag = Annotated[str, Field(pattern=r'^"[0-9a-f]{32}"$', description="as in the header ETag")]
Vector = list[float]


class Frozen(BaseModel):
    """What all bodies share."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class OkResult(Answer):
    """One image, classified: the Answer, and its place in the request."""

    index: Index
    status: Literal["ok"]


class FailedResult(AnswerError):
    """One image that could not be classified, and its place in the request."""

    index: Index
    status: Literal["error"]


class Timing(Frozen):
    """Where the time went, by the service's clock.

    Labels and images are worked on side by side, so the parts may add up to more than the whole.
    """

    total_ms: Milliseconds = Field(
        description="from the request's head to this answer's first byte"
    )
    labels_ms: Milliseconds = Field(
        description="for labels, tree and the features of their texts; about 0 where they were kept"
    )
    decode_ms: Milliseconds = Field(
        description="from bytes to pixels, a wait for a decoder included; the slowest image's"
    )
    queue_ms: Milliseconds = Field(
        description="waiting for a place in a batch; the longest of the images'"
    )
    model_ms: Milliseconds = Field(
        description="in the image encoder, with all that shared the batch; the longest"
    )


class ClassifyResponse(Frozen):
    """One result for each image, in the order of the request."""

    request_id: RequestId
    results: list[Annotated[OkResult | FailedResult, Field(discriminator="status")]]
    timing: Timing


class EmbeddedOk(Frozen):
    """Features of one image or text: a list of numbers, or base64 of little-endian float32."""

    index: Index
    status: Literal["ok"]
    embedding: Vector | str


class EmbeddedError(Frozen):
    """One image without features."""

    index: Index
    status: Literal["error"]
    error: ErrorBody


Embedded = Annotated[EmbeddedOk | EmbeddedError, Field(discriminator="status")]


class EmbedResponse(Frozen):
    """Raw features: scoring normalises them, or lifts them into hyperbolic space."""

    request_id: RequestId
    model: ModelRef
    dim: int = Field(ge=1, description="numbers in each embedding")
    encoding: Literal["float", "base64"]
    images: list[Embedded] = Field(description="in the order of the request")
    texts: list[EmbeddedOk] = Field(description="in the order of the request")


class StoredInfo(Frozen):
    """Something that is kept under an id."""

    id: str = Field(pattern=r"^[a-z0-9-]{1,64}$")
    etag: Etag
    bytes: int = Field(ge=1, description="of the content")
    created_at: datetime
    modified_at: datetime


class LabelObject(Frozen):
    """One label as it is kept."""

    id: str = Field(description="for code; no white space, comma or semicolon")
    name: str = Field(description="for people")
    prompt: str = Field(description="for the model; it fills the {} of templates")
    aliases: list[str] = Field(description="other names, to find the WordNet sense")
    synset: str | None = Field(description="WordNet 3.0 sense, such as dog.n.01")


class LabelSetDocument(Frozen):
    """A label set as it is kept: with the ids and prompts that were made."""

    labels: list[LabelObject] = Field(min_length=1)


class Trees(Frozen):
    """Several trees over the same leaves."""

    trees: list[HierarchyDocument] = Field(min_length=2)


HierarchyDocuments = HierarchyDocument | Trees
"""One tree stands for itself."""


class StoredPage(Frozen):
    """Some of what is kept, sorted by id."""

    items: list[StoredInfo]
    next_after: str | None = Field(description="`after` of the next page; null on the last")


class ModelDetails(Frozen):
    """The model that answers, and what runs it."""

    name: str
    aliases: list[str]
    digest: Digest
    provider: str = Field(description="ONNX Runtime's execution provider, as the session says")
    precision: str = Field(description="of the image encoder")
    text_precision: str = Field(description="of the text encoder")
    image_size: tuple[int, int] = Field(description="height and width that the model sees")
    embed_dim: int = Field(ge=1)
    card: dict[str, Any] | None = Field(
        description="card.json of the bundle: what was measured, and how; null where there is none"
    )


class ModelsResponse(Frozen):
    """The models of this service."""

    models: list[ModelDetails]


class LabelScore(Frozen):
    """One candidate label, as Hugging Face's API has it."""

    label: str
    score: float = Field(ge=0.0, le=1.0)


class ErrorDetails(Frozen):
    """What went wrong."""

    code: str = Field(description="stable; a row of `GET /v1/errors`")
    message: str = Field(description="for people; it may change")
    param: str | None = Field(description="the field that is to blame")
    request_id: RequestId
    docs: str = Field(description="where the code is explained")


class ErrorEnvelope(Frozen):
    """Every answer that is not a success."""

    error: ErrorDetails


class CodeRow(Frozen):
    """One error code."""

    code: str
    status: int = Field(ge=400, le=599)
    meaning: str


class CodesResponse(Frozen):
    """Every error code that the service may answer."""

    codes: list[CodeRow]


class Alive(Frozen):
    """The process answers."""

    status: Literal["alive"]


class Ready(Frozen):
    """The process takes requests."""

    status: Literal["ready"]
    checks: dict[str, bool]
