"""Every operation of the service: one table for Starlette's routes and for the OpenAPI file."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import Response

from robustzs_serving.api import schemas
from robustzs_serving.api.context import Context
from robustzs_serving.api.endpoints import about, answers, features, kept
from robustzs_serving.stored import Kind

Endpoint = Callable[[Request, Context], Awaitable[Response]]
Method = Literal["GET", "PUT", "POST", "DELETE"]
BodyName = Literal["classify", "embed", "zero-shot", "label-set", "hierarchy"]

# --- what any operation may answer; codes are rows of `robustzs_serving.codes`
_ANY = (
    "http-malformed",
    "slow-headers",
    "host-refused",
    "uri-too-long",
    "headers-too-large",
    "body-too-large",
    "internal",
)
_WORK = (*_ANY, "rate-limited", "overloaded", "deadline")
_KEYED = (*_WORK, "unauthorized")
_ENGINE = (
    "not-ready",
    "backend-unavailable",
    "backend-overloaded",
    "backend-timeout",
    "backend-mismatch",
    "shutting-down",
)
_BODY = (
    "origin-refused",
    "body-malformed",
    "field-unknown",
    "field-repeated",
    "field-missing",
    "usage",
    "slow-body",
    "field-too-large",
    "media-type",
)
_IMAGE = (
    "image",
    "image-format",
    "image-truncated",
    "image-too-large",
    "image-decode",
    "image-source",
    "image-timeout",
    "image-crash",
    "queue-full",
)
_IMAGES = (*_IMAGE, "too-many-images", "url-off", "image-url-refused", "image-url-failed")
_LABELS = ("label", "label-file", "label-duplicate")
_TREES = (
    "hierarchy",
    "hierarchy-cycle",
    "hierarchy-multiple-roots",
    "hierarchy-format",
    "hierarchy-limit",
    "hierarchy-digest",
    "label-mismatch",
)
_CHOICES = (
    "template",
    "label-unknown",
    "label-ambiguous",
    "hierarchy-unknown-node",
    "calibration",
    "calibration-insufficient",
    "calibration-mismatch",
)
_STORE = ("usage", "store-unavailable")


@dataclass(frozen=True)
class Success:
    """One answer that is no error.

    Attributes:
        description: when it comes.
        model: of its JSON body; ``None`` where there is none.
        media_type: of its body; ``None`` where there is none.
        headers: that it carries, beside the request's id.
    """

    description: str
    model: Any = None
    media_type: str | None = "application/json"
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One method of one path.

    Attributes:
        id: in the OpenAPI file.
        method: of HTTP.
        path: with parameters in braces.
        endpoint: does it; ``None`` where another room has the route.
        summary: in a few words.
        description: for the reference.
        tag: its chapter.
        body: what it takes.
        answers: what it answers by status.
        errors: codes that it may answer.
        parameters: names of its parameters; ``openapi.PARAMETERS`` describes them.
        is_public: whether it needs no key, even where keys are asked for.
    """

    id: str
    method: Method
    path: str
    summary: str
    tag: str
    answers: dict[int, Success]
    errors: tuple[str, ...]
    endpoint: Endpoint | None = None
    description: str = ""
    body: BodyName | None = None
    parameters: tuple[str, ...] = ()
    is_public: bool = field(default=False)


def _of_store(kind: Kind, noun: str, body: BodyName, document: Any) -> tuple[Operation, ...]:
    path = f"/v1/{kind}/{{id}}"
    camel = "LabelSet" if kind == "label-sets" else "Hierarchy"
    plural = "LabelSets" if kind == "label-sets" else "Hierarchies"
    is_labels = kind == "label-sets"
    kept_headers = ("ETag", "Last-Modified", "Cache-Control")
    return (
        Operation(
            id=f"list{plural}",
            method="GET",
            path=f"/v1/{kind}",
            endpoint=kept.list_label_sets if is_labels else kept.list_hierarchies,
            summary=f"What the key keeps, by id: {noun}",
            tag="Kept",
            answers={200: Success("a page of the list", schemas.StoredPage)},
            errors=(*_KEYED, *_STORE),
            parameters=("after", "limit"),
        ),
        Operation(
            id=f"put{camel}",
            method="PUT",
            path=path,
            endpoint=kept.put_label_set if is_labels else kept.put_hierarchy,
            summary=f"Keep {noun} under an id",
            description="Texts are encoded now, with the model's own templates, and their features "
            "kept on disk, where later requests with the same texts find them. "
            "`If-None-Match: *` makes a new one only; `If-Match` replaces only what the client "
            "knows.",
            tag="Kept",
            body=body,
            answers={
                201: Success(
                    "nothing was there", schemas.StoredInfo, headers=("Location", *kept_headers)
                ),
                200: Success("it was replaced", schemas.StoredInfo, headers=kept_headers),
            },
            errors=(
                *_KEYED,
                *_ENGINE,
                *_BODY,
                *_STORE,
                *(_LABELS if is_labels else (*_TREES, *_LABELS)),
                "template",
                "queue-full",
                "precondition-failed",
                "store-full",
            ),
            parameters=("id", "If-Match", "If-None-Match"),
        ),
        Operation(
            id=f"get{camel}",
            method="GET",
            path=path,
            endpoint=kept.get_label_set if is_labels else kept.get_hierarchy,
            summary=f"What is kept under an id: {noun}",
            description="In the form that `PUT` takes.",
            tag="Kept",
            answers={
                200: Success("what is kept", document, headers=kept_headers),
                304: Success(
                    "the client has it already: `If-None-Match` names its ETag",
                    media_type=None,
                    headers=kept_headers,
                ),
            },
            errors=(*_KEYED, *_STORE, "stored-not-found", "stored-damaged"),
            parameters=("id", "If-None-Match"),
        ),
        Operation(
            id=f"delete{camel}",
            method="DELETE",
            path=path,
            endpoint=kept.delete_label_set if is_labels else kept.delete_hierarchy,
            summary=f"Forget {noun}",
            tag="Kept",
            answers={204: Success("it is gone", media_type=None)},
            errors=(
                *_KEYED,
                *_STORE,
                "origin-refused",
                "stored-not-found",
                "precondition-failed",
            ),
            parameters=("id", "If-Match", "If-None-Match"),
        ),
    )


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        id="classify",
        method="POST",
        path="/v1/classify",
        endpoint=answers.classify,
        summary="Classify images down a tree of labels",
        description="Each result is the Answer of `robustzs classify`, with its place and its "
        "status. With one image its error is the response's status. With several, one bad image "
        "never fails its neighbours: then the status is 207, and that result has "
        '`"status": "error"`.',
        tag="Classify",
        body="classify",
        answers={
            200: Success("every image was answered", schemas.ClassifyResponse),
            207: Success("some images were not answered", schemas.ClassifyResponse),
        },
        errors=(
            *_KEYED,
            *_ENGINE,
            *_BODY,
            *_IMAGES,
            *_LABELS,
            *_TREES,
            *_CHOICES,
            "model-not-found",
            "stored-not-found",
            "stored-damaged",
            "store-unavailable",
        ),
    ),
    Operation(
        id="zeroShot",
        method="POST",
        path="/v1/hf/zero-shot-image-classification",
        endpoint=answers.zero_shot,
        summary="Classify one image, asked and answered as by Hugging Face's API",
        description="For clients of that API: a list of labels and scores, best first. Errors have "
        "this service's envelope.",
        tag="Classify",
        body="zero-shot",
        answers={200: Success("labels and scores, best first", list[schemas.LabelScore])},
        errors=(
            *_KEYED,
            *_ENGINE,
            *_BODY,
            *_IMAGE,
            *_LABELS,
            "template",
            "scores-withheld",
        ),
    ),
    Operation(
        id="embed",
        method="POST",
        path="/v1/embed",
        endpoint=features.embed,
        summary="Features of images and texts",
        description="Raw: scoring normalises them, or lifts them into hyperbolic space. Refused "
        "where the service rounds or withholds scores.",
        tag="Embed",
        body="embed",
        answers={
            200: Success("everything was embedded", schemas.EmbedResponse),
            207: Success("some images were not", schemas.EmbedResponse),
        },
        errors=(
            *_KEYED,
            *_ENGINE,
            *_BODY,
            *_IMAGES,
            "text",
            "model-not-found",
            "scores-withheld",
        ),
    ),
    *_of_store("label-sets", "labels", "label-set", schemas.LabelSetDocument),
    *_of_store("hierarchies", "a tree or a forest", "hierarchy", schemas.HierarchyDocuments),
    Operation(
        id="listModels",
        method="GET",
        path="/v1/models",
        endpoint=about.models,
        summary="The model, its robustness card, and the execution provider in use",
        tag="About",
        answers={200: Success("the models; there is one", schemas.ModelsResponse)},
        errors=(*_KEYED, *_ENGINE),
    ),
    Operation(
        id="getModel",
        method="GET",
        path="/v1/models/{name}",
        endpoint=about.model,
        summary="One model by its name or an alias",
        tag="About",
        answers={200: Success("the model", schemas.ModelDetails)},
        errors=(*_KEYED, *_ENGINE, "model-not-found"),
        parameters=("name",),
    ),
    Operation(
        id="listErrors",
        method="GET",
        path="/v1/errors",
        summary="Every error code, its status and what it means",
        tag="About",
        answers={200: Success("the codes", schemas.CodesResponse)},
        errors=_WORK,
        is_public=True,
    ),
    Operation(
        id="openapi",
        method="GET",
        path="/openapi.json",
        endpoint=about.openapi,
        summary="This document, with the limits of this service",
        tag="About",
        answers={200: Success("the document", dict[str, Any])},
        errors=_WORK,
        is_public=True,
    ),
    Operation(
        id="page",
        method="GET",
        path="/",
        summary="A page to try it",
        tag="About",
        answers={200: Success("the page", media_type="text/html")},
        errors=_WORK,
        is_public=True,
    ),
    Operation(
        id="livez",
        method="GET",
        path="/livez",
        summary="Whether the process answers",
        tag="Operate",
        answers={200: Success("it does", schemas.Alive)},
        errors=_ANY,
        is_public=True,
    ),
    Operation(
        id="readyz",
        method="GET",
        path="/readyz",
        summary="Whether the process takes requests",
        description="The model was verified and warmed up on the device that was asked for, a "
        "decode process lives, and the service is not stopping.",
        tag="Operate",
        answers={200: Success("it does", schemas.Ready)},
        errors=(*_ANY, "not-ready"),
        is_public=True,
    ),
    Operation(
        id="metrics",
        method="GET",
        path="/metrics",
        summary="Numbers for Prometheus",
        tag="Operate",
        answers={200: Success("in Prometheus' text format", media_type="text/plain")},
        errors=_ANY,
        is_public=True,
    ),
)
"""All of them; a test holds them and the application's routes together."""
