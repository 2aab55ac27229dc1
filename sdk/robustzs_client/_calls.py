"""What goes over the wire, without sending it: one function for each thing that a service does.

A ``Call`` says what to send and how to read the answer; both clients send the same calls.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypedDict, TypeVar

from pydantic import BaseModel, ValidationError

from robustzs_client._errors import (
    ImageRejectedError,
    RobustZSClientError,
    UnexpectedResponseError,
)
from robustzs_client._images import NamedImage
from robustzs_client._models import (
    Answer,
    AnswerError,
    Embedding,
    ErrorBody,
    ModelDetails,
    ModelRef,
    Readiness,
    StoredDocument,
    StoredInfo,
)
from robustzs_client._replies import Reply

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

Row = Answer | AnswerError
EmbeddingRow = Embedding | AnswerError
Labels = Sequence["str | Mapping[str, Any]"]
"""Names, or objects with ``name`` and some of ``id``, ``synset``, ``prompt``, ``aliases``."""
Tree = str | Mapping[str, Any]
"""``wordnet``, ``wordnet-nouns``, ``flat``, a stored id, or a tree in the published JSON form."""

TEXTS_PER_CALL = 128
_ID = re.compile(r"[a-z0-9-]{1,64}")


class ClassifyOptions(TypedDict, total=False):
    """What may be said about how to classify; what is left out or ``None`` is the service's choice.

    Attributes:
        labels: What to choose from.
        label_set: Id of labels that are stored in the service, instead of ``labels``.
        hierarchy: A tree, or several for a forest; or the id of what is stored in the service.
        templates: A template set's name, or texts with ``{}``.
        strategy: ``marginal``, ``topdown``, ``hyponyms`` or ``level``.
        rule: ``greedy`` or ``climb``.
        theta: Go deeper while a node's probability is above this, in [0, 1].
        target_accuracy: In (0, 1), instead of ``theta``: what the calibration promises.
        temperature: Above 0.
        top_k: Best leaves to list.
        level: Depth or named rank to answer at.
        root: Id, synset or name of a node to answer below.
        reject: Allow "none of these": true, or the least similarity that is accepted.
        n_hyponyms: Kinds of each label to add in strategy ``hyponyms``.
        on_ambiguous: ``error`` or ``first``, for labels with several senses.
        on_unknown: ``error`` or ``attach``, for labels that WordNet lacks.
        model: Refuse to be answered by another model than this.
    """

    labels: Labels | None
    label_set: str | None
    hierarchy: Tree | Sequence[Tree] | None
    templates: str | Sequence[str] | None
    strategy: str | None
    rule: str | None
    theta: float | None
    target_accuracy: float | None
    temperature: float | None
    top_k: int | None
    level: int | str | None
    root: str | None
    reject: bool | float | None
    n_hyponyms: int | None
    on_ambiguous: str | None
    on_unknown: str | None
    model: str | None


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request and how its answer is read.

    Attributes:
        method: Of HTTP.
        path: Below the service's address.
        read: Makes the result of a reply, or raises.
        body: Arguments of ``httpx``'s ``build_request``.
        headers: Beyond those of every request.
        once: Never tried again.
    """

    method: str
    path: str
    read: Callable[[Reply], T]
    body: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    once: bool = False


def classify(image: NamedImage, options: ClassifyOptions) -> Call[Answer]:
    """Classify one image, which is answered or raises."""
    many = classify_many([image], options)

    def read(reply: Reply) -> Answer:
        (row,) = many.read(reply)
        if isinstance(row, AnswerError):
            raise ValueError("the only image has an error, and the request has none")
        return row

    return Call(many.method, many.path, _checked(read), many.body)


def classify_rows(images: Sequence[NamedImage], options: ClassifyOptions) -> Call[list[Row]]:
    """Classify some images; one that is refused is a row, even where it was the only one."""
    return _refusal_as_row(classify_many(images, options), images)


def classify_many(images: Sequence[NamedImage], options: ClassifyOptions) -> Call[list[Row]]:
    """Classify some images; a single one that is refused raises."""

    def read(reply: Reply) -> list[Row]:
        items = _results(reply.json(), "results", len(images))
        kinds = [AnswerError if "error" in item else Answer for item in items]
        return [
            kind.model_validate(item).model_copy(update={"image": image.name})
            for kind, item, image in zip(kinds, items, images, strict=True)
        ]

    return Call("POST", "/v1/classify", _checked(read), _multipart(images, fields_of(options)))


def embed_images(images: Sequence[NamedImage]) -> Call[list[EmbeddingRow]]:
    """Features of some images; one that is refused is a row."""
    names = [image.name for image in images]
    body = _multipart(images, {"encoding": "base64"})
    call = Call("POST", "/v1/embed", _checked(lambda r: _embeddings(r, "images", names)), body)
    return _refusal_as_row(call, images)


def embed_texts(texts: Sequence[str]) -> Call[list[Embedding]]:
    """Features of some texts."""
    parts = [("text", (None, text)) for text in texts]
    body = {"data": {"encoding": "base64"}, "files": parts}

    def read(reply: Reply) -> list[Embedding]:
        rows = _embeddings(reply, "texts", texts)
        return [row for row in rows if isinstance(row, Embedding)]

    return Call("POST", "/v1/embed", _checked(read), body)


def text_batches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Texts in calls of bounded size.

    Raises:
        TypeError: One text, which is a sequence of letters, too.
    """
    if isinstance(texts, str):
        raise TypeError("give a list of texts, not one text")
    for start in range(0, len(texts), TEXTS_PER_CALL):
        yield texts[start : start + TEXTS_PER_CALL]


def models() -> Call[list[ModelDetails]]:
    """The models of the service."""

    def read(reply: Reply) -> list[ModelDetails]:
        return [ModelDetails.model_validate(item) for item in reply.json()["models"]]

    return Call("GET", "/v1/models", _checked(read))


def ready() -> Call[Readiness]:
    """Whether the service takes work; asked once."""

    def read(reply: Reply) -> Readiness:
        if reply.status not in (200, 503):
            raise reply.error()
        try:
            detail = reply.json(error=False)
        except UnexpectedResponseError:  # a plain text, as a proxy or an older service has it
            detail = {}
        return Readiness(ready=reply.status == 200, status=reply.status, detail=detail)

    return Call("GET", "/readyz", read, once=True)


def put(kind: str, id_: str, document: Any, headers: Mapping[str, str]) -> Call[StoredInfo]:
    """Keep something under an id."""
    read = _checked(lambda reply: StoredInfo.model_validate(reply.json()))
    return Call("PUT", _stored_path(kind, id_), read, {"json": document}, headers)


def get(kind: str, id_: str) -> Call[StoredDocument]:
    """What is kept under an id."""

    def read(reply: Reply) -> StoredDocument:
        document = reply.json()
        return StoredDocument(id=id_, etag=reply.headers.get("etag", ""), document=document)

    return Call("GET", _stored_path(kind, id_), _checked(read))


def delete(kind: str, id_: str, headers: Mapping[str, str]) -> Call[None]:
    """Forget what is kept under an id."""

    def read(reply: Reply) -> None:
        if reply.status != 204:
            raise reply.error()

    return Call("DELETE", _stored_path(kind, id_), read, {}, headers)


def page(kind: str, after: str) -> Call[tuple[list[StoredInfo], str | None]]:
    """Some of what is kept, and where the next page begins."""

    def read(reply: Reply) -> tuple[list[StoredInfo], str | None]:
        found = reply.json()
        items = [StoredInfo.model_validate(item) for item in found["items"]]
        return items, found["next_after"]

    return Call("GET", f"/v1/{kind}", _checked(read), {"params": {"after": after, "limit": 1000}})


def fields_of(options: ClassifyOptions) -> dict[str, str]:
    """Options as fields of a form.

    Raises:
        TypeError: There is no such option.
    """
    fields = {}
    for name, value in options.items():
        if name not in ClassifyOptions.__annotations__:
            raise TypeError(f"there is no option {name!r}")
        if value is not None:
            fields[name] = value if isinstance(value, str) else json.dumps(plain(value))
    return fields


def preconditions(if_match: str | None, *, create: bool = False) -> dict[str, str]:
    """Headers that make a change depend on what is there."""
    headers = {} if if_match is None else {"If-Match": if_match}
    return {**headers, "If-None-Match": "*"} if create else headers


def plain(value: object) -> object:
    """Sequences and mappings of any kind as those that JSON knows."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    return value


def _multipart(images: Sequence[NamedImage], fields: Mapping[str, str]) -> dict[str, Any]:
    # Names stay here: a service needs no path of the caller's.
    files = [
        ("image", (str(index), image.data, "application/octet-stream"))
        for index, image in enumerate(images)
    ]
    return {"data": fields, "files": files}


def _refusal_as_row(
    call: Call[list[T]], images: Sequence[NamedImage]
) -> Call[list[T | AnswerError]]:
    def read(reply: Reply) -> list[T | AnswerError]:
        try:
            return [*call.read(reply)]
        except ImageRejectedError as error:
            if len(images) != 1:
                raise
            body = ErrorBody(code=error.code, message=error.message)
            return [AnswerError(image=images[0].name, error=body)]

    return Call(call.method, call.path, read, call.body, call.headers)


def _checked(read: Callable[[Reply], T]) -> Callable[[Reply], T]:
    """``read``, where an answer in another form is an error of its own."""

    def checked(reply: Reply) -> T:
        try:
            return read(reply)
        except RobustZSClientError:
            raise
        except (ValidationError, KeyError, TypeError, ValueError) as error:
            raise UnexpectedResponseError(
                f"the answer (HTTP {reply.status}) is not that of a robustzs service",
                request_id=reply.request_id,
            ) from error

    return checked


def _results(payload: Mapping[str, Any], name: str, n: int) -> list[dict[str, Any]]:
    items = payload[name]
    if not isinstance(items, list) or len(items) != n:
        raise ValueError(f"{name} must be {n} items")
    return items


def _embeddings(reply: Reply, name: str, names: Sequence[str]) -> list[EmbeddingRow]:
    payload = reply.json()
    model = ModelRef.model_validate(payload["model"])
    rows: list[EmbeddingRow] = []
    for called, item in zip(names, _results(payload, name, len(names)), strict=True):
        if "error" in item:
            rows.append(AnswerError(image=called, error=ErrorBody.model_validate(item["error"])))
            continue
        numbers = _numbers(item["embedding"])
        if len(numbers) != payload["dim"]:
            raise ValueError(f"{len(numbers)} numbers")
        rows.append(Embedding(name=called, model=model, embedding=numbers))
    return rows


def _numbers(embedding: str | list[float]) -> tuple[float, ...]:
    """Features as the service writes them: base64 of little-endian float32, or a list."""
    if isinstance(embedding, list):
        return tuple(embedding)
    text = embedding
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error
    numbers = array("f")
    numbers.frombytes(data)
    if array("H", [1]).tobytes() != b"\1\0":  # the service sends the low byte first
        numbers.byteswap()
    return tuple(numbers)


def _stored_path(kind: str, id_: str) -> str:
    if not _ID.fullmatch(id_):
        raise ValueError(f"an id is 1 to 64 of a-z, 0-9 and -, not {id_!r}")
    return f"/v1/{kind}/{id_}"
